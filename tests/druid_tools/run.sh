#!/bin/sh
# Druid's tools, unmodified, against Trilith: pydruid with SQLAlchemy, what Superset asks, and Airflow's provider.
#
# TRILITH_BIN names the server; else it is $CARGO_TARGET_DIR/debug/trilith. Arguments go to pytest.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../../target}
mkdir -p "$target/druid-tools"
target=$(cd "$target" && pwd)

# environment NAME: the folder of a virtual environment with requirements-NAME.txt, made when these are new. The
# lists are complete, so that pip has nothing to resolve.
environment() {
    requirements=$here/requirements-$1.txt
    key=$( (python3 --version; cat "$requirements") | sha256sum | cut -c1-16)
    folder=$target/druid-tools/$1-$key
    if [ ! -e "$folder/complete" ]; then
        rm -rf "$folder"
        python3 -m venv "$folder"
        "$folder/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement "$requirements"
        "$folder/bin/pip" check --quiet --disable-pip-version-check
        touch "$folder/complete"
    fi
    echo "$folder"
}

pydruid=$(environment pydruid)
airflow=$(environment airflow)
cd "$here"
export PYTHONDONTWRITEBYTECODE=1
"$pydruid/bin/python" -m pytest -p no:cacheprovider --ignore=test_airflow.py "$@"
# Airflow has no database here: connections come from the environment, and operators run outside of a scheduler,
# which only its test mode permits.
export AIRFLOW_HOME="$target/druid-tools/airflow-home"
export AIRFLOW__CORE__UNIT_TEST_MODE=True
exec "$airflow/bin/python" -m pytest -p no:cacheprovider test_airflow.py "$@"
