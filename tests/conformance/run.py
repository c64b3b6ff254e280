#!/usr/bin/env python3
"""Drive a Druid-compatible HTTP endpoint through the conformance cases.

Standard library only (Python 3.11).  See FORMAT.md for the case format.

    run.py --base-url http://localhost:8888 --data-dir DIR
           [--group g] [--id glob] [--json out.json] [--parallel N]

The last line printed is always "N passed, M failed".
Exit status: 0 all passed, 1 something failed, 2 the run could not start.
"""
import argparse
import base64
import datetime as dt
import fnmatch
import hashlib
import json
import math
import os
import re
import sys
import threading
import time
import traceback
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor

HERE = os.path.dirname(os.path.abspath(__file__))
TASK_PATH = "/druid/v2/sql/task"
SQL_PATH = "/druid/v2/sql"
OVERLORD = "/druid/indexer/v1"


class Fail(Exception):
    """A check did not hold.  The message is the one-line reason."""


class NotYet(Fail):
    """A check did not hold, but may hold a little later (data still loading)."""


# --------------------------------------------------------------------------
# HTTP
# --------------------------------------------------------------------------
class Reply:
    def __init__(self, status, headers, raw):
        self.status = status
        self.headers = {k.lower(): v for k, v in headers.items()}
        self.raw = raw
        self.text = raw.decode("utf-8", "replace")
        try:
            self.json = json.loads(self.text)
            self.is_json = True
        except ValueError:
            self.json = None
            self.is_json = False


class Client:
    def __init__(self, base, headers, http_timeout):
        self.base = base.rstrip("/")
        self.headers = headers
        self.http_timeout = http_timeout
        # No proxies: the target is the base URL and nothing else.
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def call(self, method, path, body=None, headers=None, timeout=None):
        hdrs = dict(self.headers)
        data = None
        if body is not None:
            if isinstance(body, (bytes, str)):
                data = body.encode() if isinstance(body, str) else body
            else:
                data = json.dumps(body).encode()
            hdrs.setdefault("Content-Type", "application/json")
        hdrs.update(headers or {})
        req = urllib.request.Request(self.base + path, data=data, method=method, headers=hdrs)
        try:
            with self.opener.open(req, timeout=timeout or self.http_timeout) as r:
                return Reply(r.status, r.headers, r.read())
        except urllib.error.HTTPError as e:
            with e:
                return Reply(e.code, e.headers, e.read())
        except (urllib.error.URLError, OSError, TimeoutError) as e:
            raise Fail(f"{method} {path}: {type(e).__name__}: {getattr(e, 'reason', e)}")


# --------------------------------------------------------------------------
# comparing values
# --------------------------------------------------------------------------
ISO_RE = re.compile(
    r"^(-?\d{4,9})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?)?\s*"
    r"(Z|UTC|[+-]\d\d:?\d\d)?$"
)


def iso_millis(s):
    """Milliseconds since the epoch for an ISO-like date-time string, or None."""
    m = ISO_RE.match(s)
    if not m:
        return None
    y, mo, d, h, mi, sec, frac, tz = m.groups()
    try:
        days = days_from_civil(int(y), int(mo), int(d))
    except ValueError:
        return None
    ms = days * 86400000
    ms += int(h or 0) * 3600000 + int(mi or 0) * 60000 + int(sec or 0) * 1000
    if frac:
        ms += int((frac + "000")[:3])
    if tz and tz not in ("Z", "UTC"):
        sign = 1 if tz[0] == "+" else -1
        t = tz[1:].replace(":", "")
        ms -= sign * (int(t[:2]) * 3600000 + int(t[2:]) * 60000)
    return ms


def days_from_civil(y, m, d):
    if not (1 <= m <= 12 and 1 <= d <= 31):
        raise ValueError
    y -= m <= 2
    era = (y if y >= 0 else y - 399) // 400
    yoe = y - era * 400
    doy = (153 * (m + (-3 if m > 2 else 9)) + 2) // 5 + d - 1
    doe = yoe * 365 + yoe // 4 - yoe // 100 + doy
    return era * 146097 + doe - 719468


def is_num(x):
    return isinstance(x, (int, float)) and not isinstance(x, bool)


class Cmp:
    """Value comparison.  `strict` turns the leniencies off (see FORMAT.md)."""

    def __init__(self, rel=1e-9, abs_=1e-9, strict=False):
        self.rel, self.abs, self.strict = rel, abs_, strict

    def eq(self, exp, act):
        if isinstance(exp, dict) and exp and all(k.startswith("$") for k in exp):
            return self.special(exp, act)
        if exp is None:
            return act is None
        if isinstance(exp, bool):
            if isinstance(act, bool):
                return exp == act
            if self.strict:
                return False
            return (is_num(act) and act in (0, 1) and bool(act) == exp) or act == str(exp).lower()
        if is_num(exp):
            if is_num(act):
                return self.num(exp, act)
            if isinstance(act, str) and isinstance(exp, int) and not self.strict:
                return "T" in act and iso_millis(act) == exp
            return False
        if isinstance(exp, str):
            if isinstance(act, str):
                if exp == act:
                    return True
                a, b = iso_millis(exp), iso_millis(act)
                return a is not None and a == b and (":" in exp or len(exp) == 10)
            if is_num(act) and not self.strict:
                a = iso_millis(exp)
                if a is not None:
                    return a == act
                return exp in ("NaN", "Infinity", "-Infinity") and str(float(act)) == str(
                    float(exp.replace("Infinity", "inf")))
            return False
        if isinstance(exp, (list, dict)):
            if isinstance(act, str) and not self.strict:
                try:
                    act = json.loads(act)
                except ValueError:
                    return False
            if isinstance(exp, list):
                return (isinstance(act, list) and len(act) == len(exp)
                        and all(self.eq(e, a) for e, a in zip(exp, act)))
            return (isinstance(act, dict) and set(act) == set(exp)
                    and all(self.eq(v, act[k]) for k, v in exp.items()))
        return exp == act

    def num(self, exp, act):
        if isinstance(exp, int) and isinstance(act, int):
            return exp == act
        if math.isnan(exp) or math.isnan(act):
            return math.isnan(exp) and math.isnan(act)
        return math.isclose(exp, act, rel_tol=self.rel, abs_tol=self.abs)

    def special(self, exp, act):
        if "$any" in exp:
            return True
        if "$null" in exp:
            return (act is None) == bool(exp["$null"])
        if "$type" in exp:
            return has_type(act, exp["$type"])
        if "$re" in exp:
            return isinstance(act, str) and re.search(exp["$re"], act, re.S) is not None
        if "$oneOf" in exp:
            return any(self.eq(e, act) for e in exp["$oneOf"])
        if "$approx" in exp:
            want = exp["$approx"]
            if isinstance(act, str):
                try:
                    act = float(act)
                except ValueError:
                    return False
            return is_num(act) and abs(act - want) <= max(
                abs(want) * exp.get("$rel", 0), exp.get("$abs", 0))
        if "$between" in exp:
            lo, hi = exp["$between"]
            return is_num(act) and lo <= act <= hi
        if "$exact" in exp:           # no leniency at all for this one value
            return Cmp(self.rel, self.abs, True).eq(exp["$exact"], act)
        if "$set" in exp:             # array, any order
            if isinstance(act, str):
                try:
                    act = json.loads(act)
                except ValueError:
                    return False
            return isinstance(act, list) and match_unordered(exp["$set"], act, self.eq) is None
        if "$split" in exp:           # string of separated parts, any order
            return (isinstance(act, str)
                    and sorted(act.split(exp["$sep"])) == sorted(exp["$split"]))
        if "$json" in exp:
            if isinstance(act, str):
                try:
                    act = json.loads(act)
                except ValueError:
                    return False
            return self.eq(exp["$json"], act)
        raise Fail(f"bad expectation {exp}")


def match_unordered(exp, act, eq):
    """None when every expected item has its own actual item; else a reason."""
    if len(exp) != len(act):
        return f"{len(exp)} rows expected, {len(act)} came"
    left = list(range(len(act)))
    hard = []
    for e in exp:                     # exact matches first: quick for big results
        hard.append(e)
    missing = None
    by_key = {}
    for i in left:
        by_key.setdefault(canon(act[i]), []).append(i)
    rest, used = [], set()
    for e in hard:
        lst = by_key.get(canon(e))
        if lst:
            used.add(lst.pop())
        else:
            rest.append(e)
    left = [i for i in left if i not in used]
    for e in rest:
        for i in left:
            if eq(e, act[i]):
                left.remove(i)
                break
        else:
            missing = e
            break
    if missing is not None:
        spare = [act[i] for i in left][:2]
        return f"row not found: {short(missing)}; among the unmatched: {short(spare)}"
    return None


def canon(x):
    try:
        return json.dumps(x, sort_keys=True)
    except (TypeError, ValueError):
        return repr(x)


def short(x, n=260):
    s = x if isinstance(x, str) else json.dumps(x, ensure_ascii=False)
    s = " ".join(s.split())
    return s if len(s) <= n else s[: n - 3] + "..."


def has_type(v, spec):
    for t in spec.split("|"):
        if t == "any":
            return True
        if t == "null" and v is None:
            return True
        if t == "string" and isinstance(v, str):
            return True
        if t == "isoTime" and isinstance(v, str) and iso_millis(v) is not None and "T" in v:
            return True
        if t == "boolean" and isinstance(v, bool):
            return True
        if t == "integer" and isinstance(v, int) and not isinstance(v, bool):
            return True
        if t == "number" and is_num(v):
            return True
        if t == "array" and isinstance(v, list):
            return True
        if t == "object" and isinstance(v, dict):
            return True
    return False


def walk(doc, path):
    """All values at a path such as a.b[0].c, a[*].b, a.*.b ('*' is any key)."""
    toks = re.findall(r"\[(\*|\d+)\]|'([^']+)'|([^.\[\]]+)", path)
    vals = [doc]
    for idx, quoted, key in toks:
        nxt = []
        for v in vals:
            if idx:
                if isinstance(v, list):
                    if idx == "*":
                        nxt.extend(v)
                    elif int(idx) < len(v):
                        nxt.append(v[int(idx)])
            else:
                k = quoted or key
                if isinstance(v, dict):
                    if k == "*" and not quoted:
                        nxt.extend(v.values())
                    elif k in v:
                        nxt.append(v[k])
        vals = nxt
    return vals


def check_path(doc, chk, cmp_):
    path = chk["path"]
    vals = [doc] if path == "$" else walk(doc, path)
    if chk.get("exists") is False:
        if vals:
            raise Fail(f"{path} should be absent, is {short(vals[0])}")
        return
    if not vals:
        if chk.get("optional"):
            return
        raise Fail(f"{path} is missing")

    def ok(v):
        if "type" in chk and not has_type(v, chk["type"]):
            return f"is {short(v)}, not of type {chk['type']}"
        if "equals" in chk and not cmp_.eq(chk["equals"], v):
            return f"is {short(v)}, expected {short(chk['equals'])}"
        if "oneOf" in chk and not any(cmp_.eq(e, v) for e in chk["oneOf"]):
            return f"is {short(v)}, expected one of {short(chk['oneOf'])}"
        if "matches" in chk and not (isinstance(v, str) and re.search(chk["matches"], v, re.S)):
            return f"is {short(v)}, expected to match /{chk['matches']}/"
        if "gte" in chk and not (is_num(v) and v >= chk["gte"]):
            return f"is {short(v)}, expected at least {chk['gte']}"
        if "lte" in chk and not (is_num(v) and v <= chk["lte"]):
            return f"is {short(v)}, expected at most {chk['lte']}"
        if "len" in chk and not (isinstance(v, (list, dict, str)) and len(v) == chk["len"]):
            return f"is {short(v)}, expected length {chk['len']}"
        if "minLen" in chk and not (isinstance(v, (list, dict, str)) and len(v) >= chk["minLen"]):
            return f"is {short(v)}, expected length at least {chk['minLen']}"
        if "hasKeys" in chk and not (isinstance(v, dict) and all(k in v for k in chk["hasKeys"])):
            return f"is {short(v)}, expected keys {chk['hasKeys']}"
        return None

    if "sum" in chk:                  # sum of all (nested) numbers found at the path
        tot = 0
        for v in vals:
            for x in (v if isinstance(v, list) else [v]):
                tot += x if is_num(x) else 0
        if not cmp_.eq(chk["sum"], tot):
            raise Fail(f"sum over {path} is {tot}, expected {short(chk['sum'])}")
        return
    bad = [r for r in (ok(v) for v in vals) if r]
    if chk.get("any"):
        if len(bad) == len(vals):
            raise Fail(f"{path}: none of {len(vals)} values fits; first {bad[0]}")
    elif bad:
        raise Fail(f"{path} {bad[0]}")


# --------------------------------------------------------------------------
# templates
# --------------------------------------------------------------------------
SEQ_RE = re.compile(r"\{\{seq\|(-?\d+)\|(-?\d+)\|(.*?)\|(.*?)\|seq\}\}", re.S)


def expand(x, env):
    if isinstance(x, str):
        def seq(m):
            lo, hi, sep, fmt = int(m[1]), int(m[2]), m[3], m[4]
            return sep.join(fmt.replace("%d", str(i)) for i in range(lo, hi + 1))
        if "{{" in x:
            for k, v in env.items():
                x = x.replace("{{" + k + "}}", v)
            x = SEQ_RE.sub(seq, x)
        return x
    if isinstance(x, list):
        return [expand(i, env) for i in x]
    if isinstance(x, dict):
        return {(expand(k, env) if "{{" in k else k): expand(v, env) for k, v in x.items()}
    return x


# --------------------------------------------------------------------------
# running
# --------------------------------------------------------------------------
# Real Druid, for a second after a publish: the worker asks the coordinator for a segment it has not polled yet.
NOT_POLLED = re.compile(r"Failed to fetch segment details from Coordinator")
NOT_THERE = re.compile(r"not found within|Object '[^']*' not found|Column '[^']*' not found"
                       r"|Table '?[^' ]*'? not found|No such table|does not exist", re.I)


def error_text(reply):
    if reply is None:
        return ""
    parts = []

    def rec(v):
        if isinstance(v, dict):
            for i in v.values():
                rec(i)
        elif isinstance(v, list):
            for i in v:
                rec(i)
        elif isinstance(v, str):
            parts.append(v)
    if reply.is_json:
        rec(reply.json)
        return " | ".join(parts)
    return reply.text


class TaskResult:
    def __init__(self):
        self.submit = None            # Reply of the submission
        self.task_id = None
        self.status = None            # Reply of the last status call
        self.report = None            # Reply of the reports call
        self.inline = None            # rows, when the statement was answered at once (EXPLAIN)

    @property
    def state(self):
        s = walk(self.status.json, "status.status") if self.status is not None else []
        c = walk(self.status.json, "status.statusCode") if self.status is not None else []
        for v in s + c:
            if v in ("SUCCESS", "FAILED"):
                return v
        return (s + c + ["UNKNOWN"])[0]


class Runner:
    def __init__(self, args):
        self.a = args
        headers = {"Accept": "application/json"}
        for h in args.header or []:
            k, _, v = h.partition(":")
            headers[k.strip()] = v.strip()
        if args.user is not None:
            tok = base64.b64encode(f"{args.user}:{args.password or ''}".encode()).decode()
            headers["Authorization"] = "Basic " + tok
        self.c = Client(args.base_url, headers, args.http_timeout)
        self.fixtures = {}
        self.fix_lock = threading.Lock()
        self.fix_state = {}

    # ---- single calls -----------------------------------------------------
    def submit_and_wait(self, sql, context, deadline, wait=True, params=None):
        r = TaskResult()
        body = {"query": sql, "context": context}
        if params is not None:
            body["parameters"] = params
        r.submit = self.c.call("POST", TASK_PATH, body)
        if r.submit.status not in (200, 202) or not isinstance(r.submit.json, dict):
            if r.submit.status == 200 and isinstance(r.submit.json, list):
                r.inline = r.submit.json
            return r
        if r.submit.json.get("state") == "FAILED":
            return r
        r.task_id = r.submit.json.get("taskId")
        if not isinstance(r.task_id, str):
            raise Fail(f"submission answered {r.submit.status} without a taskId: {short(r.submit.text)}")
        if wait:
            self.wait_task(r, deadline)
        return r

    def wait_task(self, r, deadline):
        tid = urllib.parse.quote(r.task_id, safe="")
        first, pause = time.time(), 0.05
        while True:
            r.status = self.c.call("GET", f"{OVERLORD}/task/{tid}/status")
            if r.status.status == 200 and r.state in ("SUCCESS", "FAILED"):
                break
            if r.status.status not in (200, 404, 503):
                raise Fail(f"status call answered {r.status.status}: {short(r.status.text)}")
            if r.status.status == 404 and time.time() - first > 30:
                raise Fail("task is unknown (404) 30 s after its submission")
            if time.time() > deadline:
                raise Fail(f"timed out; task {r.task_id} still {r.state}")
            time.sleep(pause)
            pause = min(pause * 1.5, 1.0)
        end = min(deadline, time.time() + self.a.report_timeout)
        while True:
            r.report = self.c.call("GET", f"{OVERLORD}/task/{tid}/reports")
            if r.report.status == 200 and isinstance(r.report.json, dict) and r.report.json:
                break
            if time.time() > end:
                break
            time.sleep(0.3)

    def run_sql(self, sql, context, params=None):
        body = {"query": sql, "context": context, "resultFormat": "array",
                "header": True, "typesHeader": True, "sqlTypesHeader": True}
        if params is not None:
            body["parameters"] = params
        return self.c.call("POST", SQL_PATH, body)

    # ---- fixtures ---------------------------------------------------------
    def fixture_name(self, fx, env):
        if self.a.isolate_fixtures:
            return f"{env['ds']}_{fx}"
        return f"{self.a.prefix}_fx_{fx}"

    def ensure_fixture(self, fx, env, need_sql):
        table = self.fixture_name(fx, env)
        with self.fix_lock:
            st = self.fix_state.setdefault(table, {"lock": threading.Lock(), "done": False,
                                                   "err": None, "loaded": False})
        with st["lock"]:
            if not st["done"]:
                st["done"] = True
                try:
                    f = self.fixtures[fx]
                    e2 = dict(env, table=table)
                    ctx = {"waitUntilSegmentsLoad": True}
                    ctx.update(f.get("context", {}))
                    r = self.submit_and_wait(expand(f["sql"], e2), ctx, time.time() + self.a.timeout)
                    if r.task_id is None or r.state != "SUCCESS":
                        raise Fail("did not ingest: " + self.why_failed(r))
                except Fail as e:
                    st["err"] = f"fixture {fx}: {e}"
                except KeyError:
                    st["err"] = f"fixture {fx} is not defined"
            if st["err"]:
                raise Fail(st["err"])
            if st["loaded"] or (st.get("tried") and not need_sql):
                return
            # Wait until queries see the table.  A server without an interactive endpoint fails
            # only the cases that need that endpoint.
            want = self.fixtures[fx]["rows"]
            end = time.time() + (self.a.load_timeout if not st.get("tried") else 0)
            st["tried"], last = True, ""
            while True:
                r = self.run_sql(f'SELECT COUNT(*) FROM "{table}"', {})
                if r.status == 200 and isinstance(r.json, list) and r.json:
                    if r.json[-1] == [want]:
                        st["loaded"] = True
                        return
                    last = "count is " + short(r.json[-1])
                else:
                    last = f"HTTP {r.status}: " + short(error_text(r))
                    if not NOT_THERE.search(last):
                        break
                if time.time() > end:
                    break
                time.sleep(0.5)
            if need_sql:
                raise Fail(f"fixture {fx} cannot be queried on {SQL_PATH}: {last}")

    def why_failed(self, r):
        if r.task_id is None:
            return f"HTTP {r.submit.status}: {short(error_text(r.submit))}"
        err = None
        if r.report is not None and r.report.status == 200:
            for p in walk(r.report.json, "multiStageQuery.payload.status.errorReport.error"):
                err = f"{p.get('errorCode')}: {p.get('errorMessage')}"
        if err is None and r.status is not None:
            m = walk(r.status.json, "status.errorMsg")
            err = str(m[0]) if m else None
        return f"task {r.state}: {short(err or 'no error text')}"

    # ---- steps ------------------------------------------------------------
    def step(self, st, env, deadline, fresh):
        """Run one step.  `fresh`: data this step reads was written just now."""
        st = expand({k: v for k, v in st.items() if k != "save"}, env) | (
            {"save": st["save"]} if "save" in st else {})
        exp = st.get("expect", {})
        cmp_ = Cmp(exp.get("rel", 1e-9), exp.get("abs", 1e-9), self.a.strict or exp.get("strict", False))
        retry = st.get("retry", self.a.load_timeout
                       if (fresh and (self.must_run(exp) or not self.wants_failure(exp))) else 0)
        end = min(deadline, time.time() + retry)
        while True:
            try:
                return self.step_once(st, exp, cmp_, env, deadline)
            except NotYet as e:
                if time.time() >= end:
                    raise Fail(str(e))
            time.sleep(0.5)

    @staticmethod
    def must_run(exp):                # the task must be accepted and fail later
        return bool(exp.get("errorCode") or exp.get("state") == "FAILED")

    @staticmethod
    def wants_failure(exp):
        return bool(exp.get("fails") or exp.get("errorCode") or exp.get("state") == "FAILED"
                    or (exp.get("httpStatus") and not ok_status(exp["httpStatus"])))

    def step_once(self, st, exp, cmp_, env, deadline):
        if "sleep" in st:
            time.sleep(st["sleep"])
            return
        if "segments" in st:
            return self.check_segments(st["segments"], exp)
        if "http" in st:
            h = st["http"]
            r = self.c.call(h.get("method", "GET"), h["path"], h.get("body"), h.get("headers"))
            try:
                self.check_http(r, exp, cmp_)
            except Fail as e:
                raise NotYet(str(e)) if st.get("retry") else e
            self.save(st, env, {"response": r})
            return
        if "waitTask" in st:          # wait for a task submitted earlier with wait:false
            r = TaskResult()
            r.task_id = st["waitTask"]
            r.submit = Reply(202, {}, json.dumps({"taskId": r.task_id}).encode())
            self.wait_task(r, deadline)
            self.check_task(r, exp, cmp_)
            return
        if st.get("endpoint", "task") == "sql":
            r = self.run_sql(st["sql"], st.get("context", {}), st.get("parameters"))
            try:
                self.check_sql(r, exp, cmp_)
            except Fail as e:
                if self.wants_failure(exp):
                    raise e
                raise NotYet(str(e))
            self.save(st, env, {"response": r})
            return
        r = self.submit_and_wait(st["sql"], st.get("context", {}), deadline,
                                 st.get("wait", True), st.get("parameters"))
        self.save(st, env, {"response": r.submit, "status": r.status, "report": r.report})
        if r.task_id is not None:
            env["task"] = r.task_id
        if (r.task_id is None and r.inline is None and (self.must_run(exp) or not self.wants_failure(exp))
                and NOT_THERE.search(error_text(r.submit))):
            raise NotYet(f"HTTP {r.submit.status}: {short(error_text(r.submit))}")
        if st.get("wait", True):
            if (r.task_id is not None and r.state == "FAILED" and not self.wants_failure(exp)
                    and r.report is not None and NOT_POLLED.search(error_text(r.report))):
                raise NotYet(self.why_failed(r))
            self.check_task(r, exp, cmp_)
        else:
            if r.task_id is None:
                raise Fail("not accepted: " + self.why_failed(r))
            self.paths({"response": r.submit}, exp, cmp_)

    def save(self, st, env, docs):
        for name, where in (st.get("save") or {}).items():
            src, _, path = where.partition(":")
            d = docs.get(src)
            if path == "#headers":
                continue
            vals = walk(d.json, path) if d is not None else []
            if not vals:
                raise Fail(f"nothing to save at {where}")
            env[name] = str(vals[0])

    # ---- checks -----------------------------------------------------------
    def paths(self, docs, exp, cmp_):
        for chk in exp.get("jsonPaths", []):
            src = chk.get("in", "response")
            d = docs.get(src)
            if d is None:
                raise Fail(f"there is no {src} to look into")
            if not d.is_json:
                raise Fail(f"{src} is not JSON (HTTP {d.status}): {short(d.text)}")
            try:
                check_path(d.json, chk, cmp_)
            except Fail as e:
                raise Fail(f"{src}: {e}")

    def check_http(self, r, exp, cmp_):
        if "httpStatus" in exp and not status_in(exp["httpStatus"], r.status):
            raise Fail(f"HTTP {r.status}, expected {exp['httpStatus']}: {short(r.text)}")
        for name, want in exp.get("headers", {}).items():
            got = r.headers.get(name.lower())
            if got is None or not re.search(want, got):
                raise Fail(f"header {name} is {got!r}, expected to match /{want}/")
        if "text" in exp and not cmp_.eq(exp["text"], r.text.rstrip("\n") if exp.get("trim", True) else r.text):
            raise Fail(f"body is {short(r.text)}, expected {short(exp['text'])}")
        if "body" in exp:
            if not r.is_json:
                raise Fail(f"body is not JSON: {short(r.text)}")
            if not cmp_.eq(exp["body"], r.json):
                raise Fail(f"body is {short(r.text)}, expected {short(exp['body'])}")
        if "bodyUnordered" in exp:
            why = match_unordered(exp["bodyUnordered"], r.json or [], cmp_.eq)
            if why:
                raise Fail(why)
        if "ndjson" in exp:
            lines = [json.loads(x) for x in r.text.split("\n") if x.strip()]
            if not cmp_.eq(exp["ndjson"], lines):
                raise Fail(f"lines are {short(r.text)}, expected {short(exp['ndjson'])}")
        if "errorMatches" in exp:
            self.match_error(exp["errorMatches"], error_text(r))
        self.paths({"response": r}, exp, cmp_)

    def check_sql(self, r, exp, cmp_):
        if self.wants_failure(exp):
            want = exp.get("httpStatus", [400, 500, 501])
            if not status_in(want, r.status):
                raise Fail(f"HTTP {r.status}, expected {want}: {short(r.text)}")
            self.match_error(exp.get("errorMatches", []), error_text(r))
            self.paths({"response": r}, exp, cmp_)
            return
        if r.status != 200:
            raise Fail(f"HTTP {r.status}: {short(error_text(r))}")
        if not isinstance(r.json, list) or len(r.json) < 1:
            raise Fail(f"not a JSON array of rows: {short(r.text)}")
        names, body = r.json[0], r.json[1:]
        types = body[0] if len(body) > 1 else []
        sqlt = body[1] if len(body) > 1 else []
        rows = body[2:]
        self.check_rows(names, types, sqlt, rows, exp, cmp_)
        self.paths({"response": r}, exp, cmp_)

    def check_task(self, r, exp, cmp_):
        fail_wanted = self.wants_failure(exp)
        if r.task_id is None:
            if r.inline is not None and not fail_wanted:
                self.paths({"response": r.submit}, exp, cmp_)
                return
            if not fail_wanted:
                raise Fail(self.why_failed(r))
            if exp.get("errorCode") or exp.get("state") == "FAILED":
                raise Fail("refused at submission, a running task was to fail; " + self.why_failed(r))
            want = exp.get("httpStatus")
            if want is not None and not status_in(want, r.submit.status):
                raise Fail(f"HTTP {r.submit.status}, expected {want}: {short(error_text(r.submit))}")
            self.match_error(exp.get("errorMatches", []), error_text(r.submit))
            self.paths({"response": r.submit}, exp, cmp_)
            return
        if "httpStatus" in exp and not status_in(exp["httpStatus"], r.submit.status):
            raise Fail(f"accepted (HTTP {r.submit.status}) and then {r.state}; "
                       f"expected HTTP {exp['httpStatus']} at submission")
        docs = {"response": r.submit, "status": r.status, "report": r.report}
        if fail_wanted:
            if r.state != "FAILED":
                raise Fail(f"task ended {r.state}, expected to fail")
            errs = []
            if r.report is not None and r.report.status == 200:
                errs = walk(r.report.json, "multiStageQuery.payload.status.errorReport.error")
            if exp.get("errorCode"):
                codes = exp["errorCode"] if isinstance(exp["errorCode"], list) else [exp["errorCode"]]
                if not errs:
                    raise Fail("task failed but the report has no errorReport.error")
                if errs[0].get("errorCode") not in codes:
                    raise Fail(f"errorCode {errs[0].get('errorCode')}, expected {'/'.join(codes)}; "
                               f"{short(errs[0].get('errorMessage') or '')}")
                for k, v in exp.get("errorFields", {}).items():
                    if k not in errs[0]:
                        raise Fail(f"error has no field {k}: {short(errs[0])}")
                    if not cmp_.eq(v, errs[0][k]):
                        raise Fail(f"error field {k} is {short(errs[0][k])}, expected {short(v)}")
            text = error_text(r.report) if r.report is not None and r.report.status == 200 else ""
            text += " | " + error_text(r.status)
            self.match_error(exp.get("errorMatches", []), text)
            self.paths(docs, exp, cmp_)
            return
        if r.state != "SUCCESS":
            raise Fail(self.why_failed(r))
        need_rows = any(k in exp for k in ("rows", "rowsUnordered", "rowsContain", "rowCount",
                                           "signature", "columns", "sqlTypes"))
        if need_rows:
            if r.report is None or r.report.status != 200:
                raise Fail(f"no report (HTTP {r.report.status if r.report else '-'})")
            res = walk(r.report.json, "multiStageQuery.payload.results")
            if not res:
                raise Fail("report has no multiStageQuery.payload.results")
            sig = res[0].get("signature") or []
            if not all(isinstance(c, dict) and "name" in c for c in sig):
                raise Fail(f"results.signature is not a list of name/type objects: {short(sig)}")
            self.check_rows([c["name"] for c in sig], [c.get("type") for c in sig],
                            res[0].get("sqlTypeNames") or [], res[0].get("results"), exp, cmp_)
        self.paths(docs, exp, cmp_)

    @staticmethod
    def match_error(pats, text):
        if isinstance(pats, str):
            pats = [pats]
        if pats and not any(re.search(p, text, re.I | re.S) for p in pats):
            raise Fail(f"error text does not match /{pats[0]}/: {short(text)}")

    @staticmethod
    def check_rows(names, types, sqlt, rows, exp, cmp_):
        if not isinstance(rows, list):
            raise Fail(f"rows are not an array: {short(rows)}")
        if "columns" in exp and names != exp["columns"]:
            raise Fail(f"columns are {names}, expected {exp['columns']}")
        if "signature" in exp:
            got = [[n, t] for n, t in zip(names, types)]
            want = exp["signature"]
            same = len(got) == len(want) and all(
                g[0] == w[0] and g[1] in (w[1] if isinstance(w[1], list) else [w[1]])
                for g, w in zip(got, want))
            if not same:
                raise Fail(f"signature is {short(got)}, expected {short(want)}")
        if "sqlTypes" in exp and sqlt != exp["sqlTypes"]:
            raise Fail(f"SQL types are {sqlt}, expected {exp['sqlTypes']}")
        if "rowCount" in exp and not cmp_.eq(exp["rowCount"], len(rows)):
            raise Fail(f"{len(rows)} rows, expected {short(exp['rowCount'])}")
        if "rows" in exp:
            want = exp["rows"]
            for i, (w, g) in enumerate(zip(want, rows)):
                if not cmp_.eq(w, g):
                    raise Fail(f"row {i} is {short(g)}, expected {short(w)}"
                               + ("" if len(want) == len(rows) else f" ({len(rows)} rows, expected {len(want)})"))
            if len(want) != len(rows):
                raise Fail(f"{len(rows)} rows, expected {len(want)}")
        if "rowsUnordered" in exp:
            why = match_unordered(exp["rowsUnordered"], rows, cmp_.eq)
            if why:
                raise Fail(why)
        if "rowsContain" in exp:
            for w in exp["rowsContain"]:
                if not any(cmp_.eq(w, g) for g in rows):
                    raise Fail(f"row not found: {short(w)} (of {len(rows)} rows)")

    def check_segments(self, ds, exp):
        q = ('SELECT "start", "end", "num_rows", "partition_num", "shard_spec" FROM sys.segments '
             f"WHERE datasource = '{ds}' AND is_published = 1 AND is_overshadowed = 0")
        r = self.run_sql(q, {})
        if r.status == 200 and isinstance(r.json, list):
            segs = [dict(zip(r.json[0], row)) for row in r.json[3:]] if len(r.json) > 3 else []
        else:
            m = self.c.call("GET", f"/druid/coordinator/v1/metadata/datasources/{ds}/segments?full=true")
            if m.status != 200 or not isinstance(m.json, list):
                raise NotYet(f"segments cannot be listed: sys.segments HTTP {r.status} "
                             f"{short(error_text(r), 120)}; coordinator HTTP {m.status}")
            segs = []
            for s in m.json:
                a, b = s["interval"].split("/")
                segs.append({"start": a, "end": b, "num_rows": s.get("num_rows"),
                             "shard_spec": json.dumps(s.get("shardSpec")),
                             "partition_num": (s.get("shardSpec") or {}).get("partitionNum")})

        def norm(s, e):
            a, b = iso_millis(s), iso_millis(e)
            if a is not None and b is not None and a < -10 ** 15 and b > 10 ** 15:
                return "eternity"
            return f"{a}/{b}"

        def norm_txt(t):
            return "eternity" if t == "eternity" else norm(*t.split("/"))
        tomb = [s for s in segs if "tombstone" in str(s.get("shard_spec"))]
        live = [s for s in segs if s not in tomb]
        got = {}
        for s in live:
            k = norm(s["start"], s["end"])
            got.setdefault(k, []).append(s)
        if "intervals" in exp:
            want = {norm_txt(t) for t in exp["intervals"]}
            if set(got) != want:
                raise NotYet(f"segment intervals {short(sorted({s['start'] + '/' + s['end'] for s in live}))}, "
                             f"expected {short(exp['intervals'])}")
        if "count" in exp and not Cmp().eq(exp["count"], len(live)):
            raise NotYet(f"{len(live)} segments, expected {short(exp['count'])}")
        if "rows" in exp:
            n = sum(s["num_rows"] or 0 for s in live)
            if n != exp["rows"]:
                raise NotYet(f"segments hold {n} rows, expected {exp['rows']}")
        for t, n in exp.get("rowsPerInterval", {}).items():
            have = sum(s["num_rows"] or 0 for s in got.get(norm_txt(t), []))
            if have != n:
                raise NotYet(f"{t} holds {have} rows, expected {n}")
        if "shardSpec" in exp:
            for s in live:
                ty = (json.loads(s["shard_spec"]) if s["shard_spec"] else {}).get("type")
                if ty not in (exp["shardSpec"] if isinstance(exp["shardSpec"], list) else [exp["shardSpec"]]):
                    raise NotYet(f"shard spec type {ty}, expected {exp['shardSpec']}")
        if "shardDimensions" in exp:
            for s in live:
                dims = (json.loads(s["shard_spec"]) if s["shard_spec"] else {}).get("dimensions")
                if dims != exp["shardDimensions"]:
                    raise NotYet(f"shard spec dimensions {dims}, expected {exp['shardDimensions']}")
        if "tombstones" in exp:
            want = {norm_txt(t) for t in exp["tombstones"]}
            have = {norm(s["start"], s["end"]) for s in tomb}
            if have != want:
                raise NotYet(f"tombstones {sorted(have)}, expected {sorted(want)}")

    # ---- a case -----------------------------------------------------------
    def run_case(self, case):
        t0 = time.time()
        h = hashlib.sha1(case["id"].encode()).hexdigest()[:8]
        env = {"ds": f"{self.a.prefix}_{h}", "DATA": self.a.data_path}
        out = {"id": case["id"], "group": case["group"], "confidence": case.get("confidence", "high"),
               "source": case.get("source", "")}
        try:
            steps = self.steps_of(case)
            need_sql = any(s.get("endpoint") == "sql" or "http" in s for s, _ in steps)
            for fx in case.get("fixtures", []):
                env[f"fx:{fx}"] = self.fixture_name(fx, env)
                self.ensure_fixture(fx, env, need_sql)
            deadline = time.time() + case.get("timeout", self.a.timeout)
            wrote = bool(case.get("fixtures"))
            for s, label in steps:
                if time.time() > deadline:
                    raise Fail(f"{label}: timed out before it began")
                try:
                    self.step(s, env, deadline, wrote)
                except Fail as e:
                    raise Fail(f"{label}: {e}" if label != "sql" else str(e))
                wrote = True
            out.update(ok=True, reason="")
        except Fail as e:
            out.update(ok=False, reason=str(e))
        except Exception as e:         # a bug here, or an answer of an unforeseen shape
            tb = traceback.extract_tb(e.__traceback__)[-1]
            out.update(ok=False, reason=f"unexpected {type(e).__name__}: {short(str(e))} (line {tb.lineno})")
        out["seconds"] = round(time.time() - t0, 3)
        return out

    @staticmethod
    def steps_of(case):
        steps = []
        for i, s in enumerate(case.get("setup", [])):
            s = {"sql": s} if isinstance(s, str) else dict(s)
            if "sql" in s:
                s.setdefault("endpoint", "task")
                if s["endpoint"] == "task":
                    s["context"] = {"waitUntilSegmentsLoad": True} | s.get("context", {})
                    s.setdefault("expect", {"state": "SUCCESS"})
            steps.append((s, f"setup {i + 1}"))
        if "sql" in case or "http" in case:
            main = {k: case[k] for k in ("sql", "endpoint", "context", "parameters", "expect", "http",
                                         "wait", "save", "retry") if k in case}
            steps.append((main, "sql"))
        for i, s in enumerate(case.get("then", [])):
            steps.append((dict(s), f"then {i + 1}"))
        return steps


def ok_status(spec):
    return any(200 <= s < 300 for s in (spec if isinstance(spec, list) else [spec]))


def status_in(spec, got):
    return got in (spec if isinstance(spec, list) else [spec])


def load_cases(folder):
    cases, fixtures, seen = [], {}, {}
    if not os.path.isdir(folder):
        raise SystemExit(f"no case folder {folder}")
    for fn in sorted(os.listdir(folder)):
        p = os.path.join(folder, fn)
        if fn == "fixtures.json":
            with open(p, encoding="utf-8") as f:
                fixtures.update(json.load(f))
            continue
        if fn.endswith(".jsonl"):
            with open(p, encoding="utf-8") as f:
                got = [json.loads(x) for x in f if x.strip()]
        elif fn.endswith(".json"):
            with open(p, encoding="utf-8") as f:
                got = json.load(f)
        else:
            continue
        for c in got:
            if c["id"] in seen:
                raise SystemExit(f"case id {c['id']} is in {fn} and in {seen[c['id']]}")
            seen[c["id"]] = fn
            cases.append(c)
    return cases, fixtures


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("--base-url", default="http://localhost:8888")
    p.add_argument("--data-dir", default=".", help="folder of the data files, as this machine sees it")
    p.add_argument("--server-data-dir", help="the same folder as the server sees it, where that differs")
    p.add_argument("--cases", default=os.path.join(HERE, "..", "data", "conformance"))
    p.add_argument("--group", action="append", help="only this group (may be repeated)")
    p.add_argument("--id", action="append", help="only ids matching this glob (may be repeated)")
    p.add_argument("--exclude", help="file of case ids to leave out, one a line")
    p.add_argument("--confidence", action="append", choices=["high", "medium", "doubtful"],
                   help="only cases of this confidence (may be repeated)")
    p.add_argument("--json", help="write the results here")
    p.add_argument("--parallel", type=int, default=4)
    p.add_argument("--timeout", type=float, default=180, help="seconds per case")
    p.add_argument("--load-timeout", type=float, default=60,
                   help="seconds to wait for just-written data to become visible to queries "
                        "(real Druid needs it: segments load after the task ends)")
    p.add_argument("--report-timeout", type=float, default=20)
    p.add_argument("--http-timeout", type=float, default=120)
    p.add_argument("--prefix", help="prefix of the datasource names (default: new for each run)")
    p.add_argument("--isolate-fixtures", action="store_true",
                   help="ingest the shared read-only tables anew for each case")
    p.add_argument("--strict", action="store_true", help="no leniency between value encodings")
    p.add_argument("--header", action="append", help="extra request header, 'Name: value'")
    p.add_argument("--user")
    p.add_argument("--password")
    p.add_argument("--list", action="store_true", help="print the selected cases and stop")
    p.add_argument("--verbose", action="store_true", help="print each case as it ends")
    a = p.parse_args(argv)
    a.prefix = a.prefix or f"cs{int(time.time()) % 100000000:x}"
    a.data_path = a.server_data_dir or os.path.abspath(a.data_dir)

    cases, fixtures = load_cases(a.cases)
    if a.group:
        cases = [c for c in cases if c["group"] in a.group]
    if a.id:
        cases = [c for c in cases if any(fnmatch.fnmatch(c["id"], g) for g in a.id)]
    if a.confidence:
        cases = [c for c in cases if c.get("confidence", "high") in a.confidence]
    if a.exclude:
        with open(a.exclude, encoding="utf-8") as f:
            out = {x.strip() for x in f}
        cases = [c for c in cases if c["id"] not in out]
    if a.list:
        for c in cases:
            print(f"{c['group']:14} {c.get('confidence', 'high'):9} {c['id']}  [{c.get('source', '')}]")
        print(f"{len(cases)} cases")
        return 0
    if not cases:
        print("no case selected")
        return 2

    r = Runner(a)
    r.fixtures = fixtures
    results, lock = [], threading.Lock()
    started = time.time()

    def one(c):
        out = r.run_case(c)
        with lock:
            results.append(out)
            if a.verbose:
                mark = "ok  " if out["ok"] else "FAIL"
                print(f"{mark} {out['id']} ({out['seconds']} s) {out['reason']}", flush=True)
        return out

    with ThreadPoolExecutor(max_workers=max(1, a.parallel)) as ex:
        list(ex.map(one, cases))

    order = {c["id"]: i for i, c in enumerate(cases)}
    results.sort(key=lambda o: order[o["id"]])
    groups = {}
    for o in results:
        g = groups.setdefault(o["group"], [0, 0])
        g[0 if o["ok"] else 1] += 1
    print()
    print(f"{'group':16}{'passed':>8}{'failed':>8}")
    for g, (ok, bad) in groups.items():
        print(f"{g:16}{ok:>8}{bad:>8}")
    bad = [o for o in results if not o["ok"]]
    if bad:
        print("\nfailures:")
        for o in bad:
            tag = "" if o["confidence"] == "high" else f" ({o['confidence']})"
            print(f"  {o['id']}{tag}: {short(o['reason'], 400)}")
    passed, failed = len(results) - len(bad), len(bad)
    if a.json:
        with open(a.json, "w", encoding="utf-8") as f:
            json.dump({"baseUrl": a.base_url, "prefix": a.prefix, "passed": passed, "failed": failed,
                       "seconds": round(time.time() - started, 1),
                       "groups": {g: {"passed": v[0], "failed": v[1]} for g, v in groups.items()},
                       "cases": results}, f, indent=1, ensure_ascii=False)
    print(f"\n{passed} passed, {failed} failed")
    return 0 if not failed else 1


if __name__ == "__main__":
    sys.exit(main())
