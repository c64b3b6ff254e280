#!/bin/sh
# Builds the sdist, from it the wheel, installs the wheel and tests what is installed: ruff, mypy, pytest.
#
# TRILITH_BIN names the server; else it is $CARGO_TARGET_DIR/debug/trilith. Arguments go to pytest.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../../target}
mkdir -p "$target/python-client"
target=$(cd "$target" && pwd)

# environment NAME: the folder of a virtual environment with requirements-NAME.txt, made when these are new.
environment() {
    requirements=$here/requirements-$1.txt
    key=$( (python3 --version; cat "$requirements") | sha256sum | cut -c1-16)
    folder=$target/python-client/$1-$key
    if [ ! -e "$folder/complete" ]; then
        rm -rf "$folder"
        python3 -m venv "$folder"
        "$folder/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements"
        touch "$folder/complete"
    fi
    echo "$folder"
}

build=$(environment build)
tests=$(environment test)
dist=$target/python-client/dist
rm -rf "$dist"
"$build/bin/python" -m build --no-isolation --outdir "$dist" "$here" > "$target/python-client/build.log" 2>&1 ||
    { cat "$target/python-client/build.log" >&2; exit 1; }
"$tests/bin/pip" install --quiet --disable-pip-version-check --force-reinstall --no-deps "$dist"/trilith-*.whl

cd "$here"
"$tests/bin/ruff" check --cache-dir "$target/python-client/ruff" .
"$tests/bin/ruff" format --check --cache-dir "$target/python-client/ruff" .
# Not from here: mypy must check the installed package, which has the generated modules.
(cd "$target/python-client" && "$tests/bin/mypy" --config-file "$here/pyproject.toml" --cache-dir "$target/python-client/mypy" -p trilith)
exec "$tests/bin/python" -m pytest -o cache_dir="$target/python-client/pytest" "$@"
