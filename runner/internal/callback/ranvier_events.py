# Copyright the Ranvier authors
# SPDX-License-Identifier: Apache-2.0
"""Tells Ranvier's worker what happens in a play.

This is a stdout callback of Ansible. Its class is made at load time from the
stdout callback that the user would have had, so that what is printed is what
that one prints; around each of its methods the event is written down.

An event is one line of JSON at the end of the file $AWX_ISOLATED_DATA_DIR/events.
On the terminal two marks enclose the text that belongs to it; the first says
where in the file the line is. The marks carry a key that only the worker and
this process know, so that no output of a play is taken for one. Where there is
no key (an ansible that a task of the play has started) nothing is added.
"""

import datetime
import functools
import json
import os
import sys
import threading

from ansible import constants, release
from ansible.errors import AnsibleError
from ansible.plugins.loader import callback_loader
from ansible.utils.display import Display

OLDEST = (2, 13)
if tuple(int(part) for part in release.__version__.split(".")[:2]) < OLDEST:
    raise AnsibleError("ansible-core %s is too old: Ranvier needs %d.%d or newer; upgrade ansible-core on node %s"
                       % ((release.__version__,) + OLDEST + (os.uname()[1],)))

ADHOC = "AD_HOC_COMMAND_ID" in os.environ
JOB_IDS = (("JOB_ID", "job_id"), ("AD_HOC_COMMAND_ID", "ad_hoc_command_id"), ("PROJECT_UPDATE_ID", "project_update_id"))
FAILURES = ("runner_on_failed", "runner_on_async_failed", "runner_item_on_failed")
KINDS = ("debug", "verbose", "deprecated", "warning", "system_warning", "error")
HIDDEN = "the output has been hidden due to the fact that 'no_log: true' was specified for this result"


def now():
    return datetime.datetime.now(datetime.timezone.utc)


def stamp(moment):
    return moment.isoformat()


def random_uuid():
    """A version 4 UUID, in a fraction of the time that uuid.uuid4 takes."""
    text = os.urandom(16).hex()
    return "%s-%s-4%s-%s%s-%s" % (
        text[:8], text[8:12], text[13:16], "89ab"[int(text[16], 16) & 3], text[17:20], text[20:])


def is_on(name):
    return os.environ.get(name, "").strip().lower() in ("1", "true", "t", "yes", "y", "on")


# ---------------------------------------------------------------- JSON

def plain(value):
    """What json does not know: a stand-in that says as much as can be said."""
    if getattr(value, "yaml_tag", None) == "!vault":
        return "$encrypted$"
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).decode("utf-8", "surrogateescape")
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "items"):
        return dict(value.items())
    if hasattr(value, "__iter__"):
        return list(value)
    return str(value)


def sane(value, above=()):
    """A copy whose keys are text and which does not contain itself."""
    if id(value) in above:
        return "<recursion>"
    inside = above + (id(value),)
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): sane(item, inside) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [sane(item, inside) for item in value]
    return value


ENCODER = json.JSONEncoder(default=plain)


def encode(record):
    try:
        return ENCODER.encode(record)
    except (TypeError, ValueError, RecursionError):
        return json.dumps(sane(record), default=str)


# ---------------------------------------------------------------- the journal

class Held:
    """Stands in for sys.stdout while an event's text is printed, so that the
    text and both marks go to the terminal in one write. Whoever wants to see
    his text at once (flush), and whatever goes around this, is let through."""

    def __init__(self, stream, begin):
        self.stream = stream
        self.begin = begin
        self.text = []
        self.deaf = False  # Display is printing: older ones flush each time

    def write(self, text):
        self.text.append(text)
        return len(text)

    def writelines(self, lines):
        self.text.extend(lines)

    def flush(self):
        if not self.deaf:
            self.spill()

    def spill(self):
        text, self.text = "".join(self.text), []
        encoding = getattr(self.stream, "encoding", None)
        if encoding and not text.isascii():
            text.encode(encoding, self.stream.errors)  # newer Ansibles warn of what cannot be, in front of it
        text = "".join([self.begin] + self.text + [text])
        self.begin, self.text = "", []
        self.stream.write(text)
        self.stream.flush()

    def __getattr__(self, name):  # buffer, fileno, isatty, encoding, ...
        self.spill()
        return getattr(self.stream, name)


class Journal:
    """The events file and the marks. Only the process that made it writes;
    the lock keeps what two threads print apart, each with its own event."""

    def __init__(self):
        self.key = os.environ.pop("RANVIER_EVENTS_KEY", "")
        self.pid = os.getpid()
        self.lock = threading.RLock()
        self.open = None  # what holds the text of the event that is being printed
        self.flags = threading.local()
        self.fd = None
        if self.key:
            path = os.path.join(os.environ["AWX_ISOLATED_DATA_DIR"], "events")
            self.fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            self.offset = os.fstat(self.fd).st_size
            self.begin = "\x1b]ranvier;%s;%%d,%%d\x07" % self.key
            self.end = "\x1b]ranvier;%s;\x07" % self.key
            os.register_at_fork(after_in_child=self.leave)

    def leave(self):
        self.fd = None

    def write(self, line):
        """Appends a line and returns where it is."""
        start, done = self.offset, os.write(self.fd, line)
        while done < len(line):
            done += os.write(self.fd, line[done:])
        self.offset += done
        return start, done

    def around(self, record, stream, call):
        """Calls call between the marks of the event."""
        try:
            begin = self.begin % self.write(record.encode("ascii") + b"\n")
        except OSError as why:  # the disk is full: the play goes on without events
            sys.stderr.write("ranvier: events can no longer be written: %s\n" % why)
            self.fd = None
            return call()
        if stream is not sys.stdout:
            return self.beside(begin, stream, call)
        held = self.open = sys.stdout = Held(stream, begin)
        try:
            return call()
        finally:
            try:
                held.write(self.end)
                sys.stderr.flush()
                held.spill()
            except (OSError, ValueError):
                pass  # the terminal is gone; so is who would have read
            finally:
                self.open = None
                if sys.stdout is held:
                    sys.stdout = stream

    def beside(self, begin, stream, call):
        """around for text that does not go to sys.stdout."""
        self.open = Held(stream, "")
        try:
            stream.write(begin)
            stream.flush()
            return call()
        finally:
            self.open = None
            try:
                stream.write(self.end)
                stream.flush()
            except (OSError, ValueError):
                pass


JOURNAL = Journal()


# ---------------------------------------------------------------- the state

class State:
    """Which playbook, play and task is the present one, for what is printed by
    the way; and what has to be remembered of them."""

    def __init__(self):
        self.playbook = {}
        self.play = {}
        self.task = {}
        self.started = {}  # (host, task) -> when
        self.names = {}    # uuid of Ansible -> how often it was announced
        self.tasks = (None, None, None)  # the last task described, its name then, and how
        self.job_ids = {}
        for variable, key in JOB_IDS:
            value = os.environ.get(variable, "")
            if value:
                self.job_ids[key] = int(value) if value.isdigit() else value
        self.omit = is_on("RUNNER_OMIT_EVENTS")
        self.only_failed = is_on("RUNNER_ONLY_FAILED_EVENTS")
        self.show_args = getattr(constants, "DISPLAY_ARGS_TO_STDOUT", False)
        try:
            self.limit = int(os.environ.get("MAX_EVENT_RES", 700000))
        except ValueError:
            self.limit = 700000

    def announce(self, ident):
        """The uuid of the event that a play or task begins: a repeat has a number."""
        ident = str(ident)
        count = self.names[ident] = self.names.get(ident, 0) + 1
        return ident if count == 1 else "%s_%d" % (ident, count)

    def describe(self, task):
        """The members of event_data that tell of a task. Its name is another one
        while Ansible announces it: there the variables in it are filled in."""
        if self.tasks[0] is task and self.tasks[1] == task.name:
            return self.tasks[2]
        told = {
            "task": task.name or task.action,
            "task_uuid": str(task._uuid),
            "task_action": str(task.action),
            "resolved_action": getattr(task, "resolved_action", None),
            "task_args": self.args(task),
        }
        try:
            told["task_path"] = task.get_path()
        except AttributeError:
            pass
        role = getattr(task, "_role", None)
        if role:
            told["role"] = getattr(role, "_role_name", None) or role.get_name()
            told["resolved_role"] = role.get_name()
        self.tasks = (task, task.name, told)
        return told

    def args(self, task):
        if not self.show_args:
            return ""
        if task.no_log:
            return HIDDEN
        return ", ".join("%s=%s" % item for item in task.args.items())


STATE = State()


def part(result, name):
    """A member of a task's result; newer versions have it without the underscore."""
    try:
        return getattr(result, "_" + name)
    except AttributeError:
        return getattr(result, name)


def censored(res):
    """res without what must not be told. Ansible itself does so for a task with no_log
    and for a result, but not for the items in a loop's result."""
    if res.get("_ansible_no_log"):
        return {"censored": HIDDEN}
    items = res.get("results")
    if isinstance(items, list) and any(isinstance(item, dict) and item.get("_ansible_no_log") for item in items):
        res = dict(res, results=[censored(item) if isinstance(item, dict) else item for item in items])
    return res


def slim(res, task):
    """res without the environment that fact gathering repeats for each host."""
    facts = res.get("ansible_facts")
    if str(task.action).rsplit(".", 1)[-1] in ("setup", "gather_facts") and isinstance(facts, dict) and "ansible_env" in facts:
        res = dict(res, ansible_facts={key: value for key, value in facts.items() if key != "ansible_env"})
    return res


def record(kind, data, ident=None, verbosity=None):
    """The line of an event, and the uuid in it."""
    ident = ident or random_uuid()
    event = {"uuid": ident, "event": kind}
    event.update(STATE.job_ids)
    event["pid"] = JOURNAL.pid
    event["created"] = stamp(now())
    for key in ("task_uuid", "play_uuid", "playbook_uuid"):
        parent = data.get(key)
        if parent and parent != ident:
            event["parent_uuid"] = parent
            break
    if verbosity is not None:
        event["verbosity"] = verbosity
    data["uuid"] = ident
    if STATE.omit or STATE.only_failed and kind not in FAILURES:
        data = {}
    event["event_data"] = data
    line = encode(event)
    # The text of a value is never more than twice as long as its JSON.
    if 2 * len(line) > STATE.limit and "res" in data and len(str(data["res"])) > STATE.limit:
        data["res"] = {}
        line = encode(event)
    return line


# ---------------------------------------------------------------- Display

def flagged(kind, method):
    """Display's method, with what it prints known as kind. The flags are the
    thread's: another one may print at the same time."""

    @functools.wraps(method)
    def wrapper(self, *args, **kwargs):
        if JOURNAL.fd is None:
            return method(self, *args, **kwargs)
        before = getattr(JOURNAL.flags, "now", {})
        level = before.get("level")
        if kind == "verbose":
            level = kwargs.get("caplevel", args[2] if len(args) > 2 else 2) + 1
            if level > self.verbosity:  # as most: it prints nothing
                return method(self, *args, **kwargs)
        JOURNAL.flags.now = dict(before, level=level, **{kind: True})
        try:
            return method(self, *args, **kwargs)
        finally:
            JOURNAL.flags.now = before

    return wrapper


def printed(method):
    """Display.display, with an event of its own for what no event is printing."""

    @functools.wraps(method)
    def wrapper(self, *args, **kwargs):
        log_only = kwargs.get("log_only", args[4] if len(args) > 4 else False)
        if log_only or JOURNAL.fd is None:
            return method(self, *args, **kwargs)
        on_stderr = kwargs.get("stderr", args[2] if len(args) > 2 else False)
        with JOURNAL.lock:
            held = JOURNAL.open
            if held is not None:
                if on_stderr:
                    held.spill()  # the mark comes before the text
                held.deaf = True
                try:
                    return method(self, *args, **kwargs)
                finally:
                    held.deaf = False
            flags = dict(getattr(JOURNAL.flags, "now", {}))
            level = flags.pop("level", None)
            kind = next((name for name in KINDS if flags.get(name)), "verbose")
            data = dict(STATE.playbook, **STATE.play)
            data.update(STATE.task)
            data.update(flags)
            stream = sys.stderr if on_stderr else sys.stdout
            return JOURNAL.around(record(kind, data, verbosity=level), stream, lambda: method(self, *args, **kwargs))

    return wrapper


def listen():
    if JOURNAL.fd is None:
        return
    for kind in KINDS:
        if kind == "debug" and not constants.DEFAULT_DEBUG:
            continue  # called again and again, it prints nothing
        for name in (kind, "_" + kind):  # what is sent from a fork arrives at the latter
            if callable(getattr(Display, name, None)):
                setattr(Display, name, flagged(kind, getattr(Display, name)))
    Display.display = printed(Display.display)


# ---------------------------------------------------------------- the plugin

def users_callback():
    """The class that prints, and the documentation with its options."""
    name = os.environ.get("ORIGINAL_STDOUT_CALLBACK") or ("minimal" if ADHOC else "default")
    found = callback_loader.get(name, class_only=True)
    if found is None:
        raise AnsibleError("Invalid callback for stdout specified: %s" % name)
    # A class without documentation has the options of the one it derives from.
    texts = (getattr(sys.modules.get(cls.__module__), "DOCUMENTATION", None) for cls in found.__mro__)
    return found, next((text for text in texts if text), "")


Users, DOCUMENTATION = users_callback()


def event(method):
    """Makes a method of the user's callback tell its event: method returns the
    event's kind, its data and, for a play or task, its uuid, or None for no
    event. It is called where something went wrong as well, so that it must not
    spoil the play: the text still is printed."""
    name = method.__name__

    @functools.wraps(method)
    def wrapper(self, *args, **kwargs):
        call = functools.partial(getattr(super(CallbackModule, self), name), *args, **kwargs)
        if JOURNAL.fd is None:
            return call()
        with JOURNAL.lock:
            if JOURNAL.open is not None:
                return call()
            told = method(self, *args, **kwargs)
            if told is None:
                return call()
            return JOURNAL.around(record(*told), sys.stdout, call)

    return wrapper


def of_task(task, **members):
    data = dict(STATE.playbook, **STATE.play)
    data.update(STATE.describe(task))
    data.update(members)
    return data


def of_result(result, **members):
    return of_task(part(result, "task"), host=part(result, "host").get_name(), **members)


def res_of(result):
    return slim(censored(part(result, "result")), part(result, "task"))


def finished(result, *keys, **extra):
    """The data of a task that has ended on a host; keys are the members, in order."""
    host, task = part(result, "host"), part(result, "task")
    end = now()
    start = STATE.started.pop((host.get_name(), str(task._uuid)), end)
    known = {
        "remote_addr": getattr(host, "address", host.get_name()), "res": res_of(result),
        "start": stamp(start), "end": stamp(end), "duration": (end - start).total_seconds(),
        "event_loop": getattr(task, "loop_with", None),
    }
    known.update(extra)
    return of_result(result, **{key: known[key] for key in keys})


class CallbackModule(Users):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "ranvier_events"

    @event
    def v2_playbook_on_start(self, playbook, *_, **__):
        ident = random_uuid()
        STATE.playbook = {"playbook": playbook._file_name, "playbook_uuid": ident}
        STATE.play, STATE.task = {}, {}
        return "playbook_on_start", dict(STATE.playbook), ident

    @event
    def v2_playbook_on_play_start(self, play, *_, **__):
        hosts = play.hosts if isinstance(play.hosts, str) else ",".join(str(host) for host in play.hosts)
        if ADHOC:
            return None
        ident = STATE.announce(play._uuid)
        STATE.task = {}
        STATE.play = {"play": play.name or hosts, "play_uuid": ident, "play_pattern": hosts}
        data = dict(STATE.playbook, **STATE.play)
        data.update(name=play.name or hosts, pattern=hosts)
        return "playbook_on_play_start", data, ident

    def task_starts(self, task, is_conditional):
        ident = STATE.announce(task._uuid)
        STATE.task = STATE.describe(task)
        if ADHOC:
            return None
        data = of_task(task, name=task.get_name(), is_conditional=is_conditional)
        return "playbook_on_task_start", data, ident

    @event
    def v2_playbook_on_task_start(self, task, is_conditional=False, *_, **__):
        return self.task_starts(task, is_conditional)

    @event
    def v2_playbook_on_cleanup_task_start(self, task, *_, **__):
        return self.task_starts(task, False)

    @event
    def v2_playbook_on_handler_task_start(self, task, *_, **__):
        return self.task_starts(task, True)

    @event
    def v2_playbook_on_vars_prompt(self, varname, private=True, prompt=None, encrypt=None, confirm=False,
                                   salt_size=None, salt=None, default=None, unsafe=None, *_, **__):
        data = dict(STATE.playbook)
        data.update(varname=varname, private=private, prompt=prompt, encrypt=encrypt, confirm=confirm,
                    salt_size=salt_size, salt=salt, default=default, unsafe=unsafe)
        return "playbook_on_vars_prompt", data

    @event
    def v2_playbook_on_include(self, included_file, *_, **__):
        data = dict(STATE.playbook, **STATE.play)
        data.update(STATE.task, included_file=included_file._filename)
        return "playbook_on_include", data

    @event
    def v2_playbook_on_notify(self, handler, host, *_, **__):
        data = dict(STATE.playbook, **STATE.play)
        data.update(STATE.task, host=host.get_name(), handler=handler.get_name())
        return "playbook_on_notify", data

    @event
    def v2_playbook_on_no_hosts_matched(self, *_, **__):
        return "playbook_on_no_hosts_matched", dict(STATE.playbook, **STATE.play)

    @event
    def v2_playbook_on_no_hosts_remaining(self, *_, **__):
        return "playbook_on_no_hosts_remaining", dict(STATE.playbook, **STATE.play)

    @event
    def v2_playbook_on_stats(self, stats, *_, **__):
        STATE.play, STATE.task = {}, {}
        data = dict(STATE.playbook)
        for key in ("changed", "dark", "failures", "ignored", "ok", "processed", "rescued", "skipped"):
            data[key] = getattr(stats, key, {})
        custom = getattr(stats, "custom", None) or {}
        data["artifact_data"] = custom.get("_run", {})
        return "playbook_on_stats", data

    @event
    def v2_runner_on_start(self, host, task, *_, **__):
        STATE.started[(host.get_name(), str(task._uuid))] = now()
        return "runner_on_start", of_task(task, host=host.get_name())

    @event
    def v2_runner_on_ok(self, result, *_, **__):
        return "runner_on_ok", finished(result, "remote_addr", "res", "start", "end", "duration", "event_loop")

    @event
    def v2_runner_on_failed(self, result, ignore_errors=False, *_, **__):
        return "runner_on_failed", finished(
            result, "remote_addr", "res", "start", "end", "duration", "ignore_errors", "event_loop",
            ignore_errors=ignore_errors)

    @event
    def v2_runner_on_skipped(self, result, *_, **__):
        return "runner_on_skipped", finished(result, "remote_addr", "start", "end", "duration", "event_loop")

    @event
    def v2_runner_on_unreachable(self, result, *_, **__):
        return "runner_on_unreachable", finished(result, "remote_addr", "start", "end", "duration", "res")

    @event
    def v2_runner_on_no_hosts(self, task, *_, **__):
        return "runner_on_no_hosts", of_task(task)

    @event
    def v2_runner_item_on_ok(self, result, *_, **__):
        return "runner_item_on_ok", of_result(result, res=res_of(result))

    @event
    def v2_runner_item_on_failed(self, result, *_, **__):
        return "runner_item_on_failed", of_result(result, res=res_of(result))

    @event
    def v2_runner_item_on_skipped(self, result, *_, **__):
        return "runner_item_on_skipped", of_result(result, res=res_of(result))

    @event
    def v2_runner_retry(self, result, *_, **__):
        return "runner_retry", of_result(result, res=res_of(result))

    @event
    def v2_runner_on_async_poll(self, result, *_, **__):
        return "runner_on_async_poll", self.of_async(result)

    @event
    def v2_runner_on_async_ok(self, result, *_, **__):
        return "runner_on_async_ok", self.of_async(result)

    @event
    def v2_runner_on_async_failed(self, result, *_, **__):
        return "runner_on_async_failed", self.of_async(result)

    def of_async(self, result):
        res = part(result, "result")
        return of_result(result, res=res_of(result), jid=res.get("ansible_job_id"))

    @event
    def v2_on_file_diff(self, result, *_, **__):
        res = part(result, "result")
        return "runner_on_file_diff", of_result(result, diff=res.get("diff"))


listen()
