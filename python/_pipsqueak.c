/* SPDX-License-Identifier: Apache-2.0
 * Runs in: zygotes and their children.
 *
 * The C half of the bootstrap: messages, sleeping, forking. One binary for every CPython from 3.9
 * on (stable ABI). See python/bootstrap.py for the other half.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03090000
#include <Python.h>

#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "again.h"
#include "base/clock.h"
#include "base/mem.h"
#include "fork.h"
#include "holes.h"
#include "pages.h"
#include "preload.h"
#include "wire/messages.h"
#include "wire/wire.h"

static PyObject *raise_err(const struct err *err)
{
	PyErr_SetString(PyExc_OSError, err->text);
	return NULL;
}

/* ---- messages ---- */

static int put_list(struct wire_msg *m, uint8_t tag, PyObject *list)
{
	auto_buf struct buf out = BUF_MAX(LIMIT_FRAME_BYTES);
	Py_ssize_t n = PyList_Size(list);

	for (Py_ssize_t i = 0; i < n; i++) {
		PyObject *item = PyList_GetItem(list, i); /* borrowed */
		PyObject *bytes = PyUnicode_AsEncodedString(item, "utf-8", "surrogateescape");
		const char *text = bytes ? PyBytes_AsString(bytes) : NULL;
		struct err err;
		int rc = -1;

		if (text)
			rc = buf_put(&out, text, strlen(text) + 1, &err);
		Py_XDECREF(bytes);
		if (!text)
			return -1;
		if (rc < 0) {
			raise_err(&err);
			return -1;
		}
	}
	wire_put(m, tag, out.data, out.len);
	return 0;
}

static int put_text(struct wire_msg *m, uint8_t tag, PyObject *text)
{
	PyObject *bytes = PyUnicode_AsEncodedString(text, "utf-8", "surrogateescape");
	char *data;
	Py_ssize_t len;
	int rc = -1;

	if (bytes && PyBytes_AsStringAndSize(bytes, &data, &len) == 0) {
		if ((size_t)len <= LIMIT_FRAME_BYTES / 2) {
			wire_put(m, tag, data, (size_t)len);
			rc = 0;
		} else {
			PyErr_SetString(PyExc_OSError, "field too large");
		}
	}
	Py_XDECREF(bytes);
	return rc;
}

static int put_field(struct wire_msg *m, uint8_t tag, PyObject *value)
{
	if (PyBytes_Check(value)) {
		char *data;
		Py_ssize_t len;

		if (PyBytes_AsStringAndSize(value, &data, &len) < 0)
			return -1;
		if ((size_t)len > LIMIT_FRAME_BYTES / 2) {
			PyErr_SetString(PyExc_OSError, "field too large");
			return -1;
		}
		wire_put(m, tag, data, (size_t)len);
		return 0;
	}
	if (PyUnicode_Check(value))
		return put_text(m, tag, value);
	if (PyList_Check(value))
		return put_list(m, tag, value);
	uint64_t v = PyLong_AsUnsignedLongLong(value);

	if (PyErr_Occurred())
		return -1;
	wire_put_u64(m, tag, v);
	return 0;
}

static int fill(struct wire_msg *m, PyObject *args, int *out_fd)
{
	unsigned int type, id;
	PyObject *fields, *key, *value;
	Py_ssize_t pos = 0;

	if (!PyArg_ParseTuple(args, "iIIO!", out_fd, &type, &id, &PyDict_Type, &fields))
		return -1;
	m->type = (uint16_t)type;
	m->id = id;
	while (PyDict_Next(fields, &pos, &key, &value)) {
		long tag = PyLong_AsLong(key);

		if (tag < 0 || tag > 255 || put_field(m, (uint8_t)tag, value) < 0) {
			if (!PyErr_Occurred())
				PyErr_SetString(PyExc_ValueError, "no such tag");
			return -1;
		}
	}
	return 0;
}

static PyObject *py_send(PyObject *self, PyObject *args)
{
	auto_msg struct wire_msg m;
	struct err err;
	int fd;

	wire_init(&m, 0, 0);
	if (fill(&m, args, &fd) < 0)
		return NULL;
	if (wire_frame_send(fd, &m, &err) < 0)
		return raise_err(&err);
	Py_RETURN_NONE;
}

static PyObject *py_send_packet(PyObject *self, PyObject *args)
{
	auto_msg struct wire_msg m;
	struct err err;
	int fd;

	wire_init(&m, 0, 0);
	if (fill(&m, args, &fd) < 0)
		return NULL;
	if (wire_send(fd, &m, &err) < 0)
		return raise_err(&err);
	Py_RETURN_NONE;
}

static PyObject *as_tuple(const struct wire_msg *m)
{
	PyObject *fields = PyDict_New();
	struct wire_field f;
	size_t pos = 0;

	while (fields && wire_next(m, &pos, &f)) {
		PyObject *key = PyLong_FromLong(f.tag);
		PyObject *value = PyBytes_FromStringAndSize(f.data, (Py_ssize_t)f.len);
		int rc = -1;

		if (key && value)
			rc = PyDict_Contains(fields, key) ? 0 : PyDict_SetItem(fields, key, value);
		Py_XDECREF(key);
		Py_XDECREF(value);
		if (rc < 0)
			Py_CLEAR(fields);
	}
	return fields ? Py_BuildValue("IIN", m->type, m->id, fields) : NULL;
}

/* Exactly one frame's bytes are read: whoever reads this descriptor next finds the next frame. */
static int read_exactly(int fd, struct buf *in, size_t len, struct err *err)
{
	while (len) {
		char *to = buf_room(in, len, err);
		ssize_t n;

		if (!to)
			return -1;
		n = read(fd, to, len);
		if (n < 0 && errno == EINTR) {
			if (PyErr_CheckSignals() < 0)
				return -2;
			continue;
		}
		/* Reset: the daemon has closed its end and not read our last word. */
		if (n == 0 || (n < 0 && errno == ECONNRESET))
			return 0;
		if (n < 0)
			return err_sys(err, errno, "reading a message");
		buf_grew(in, (size_t)n);
		len -= (size_t)n;
	}
	return 1;
}

static PyObject *py_recv(PyObject *self, PyObject *args)
{
	auto_buf struct buf in = BUF_MAX(LIMIT_FRAME_BYTES + 64);
	auto_msg struct wire_msg m;
	struct err err = ERR_INIT;
	PyThreadState *saved;
	uint32_t len;
	int fd, rc;

	wire_init(&m, 0, 0);
	if (!PyArg_ParseTuple(args, "i", &fd))
		return NULL;
	saved = PyEval_SaveThread(); /* a handler's threads run on between calls */
	rc = read_exactly(fd, &in, 12, &err);
	PyEval_RestoreThread(saved);
	if (rc == 1) {
		memcpy(&len, in.data + 8, sizeof(len));
		if (len <= LIMIT_FRAME_BYTES) {
			saved = PyEval_SaveThread();
			rc = len ? read_exactly(fd, &in, len, &err) : 1;
			PyEval_RestoreThread(saved);
		}
	}
	if (rc == 0) {
		PyErr_SetString(PyExc_EOFError, "end of link");
		return NULL;
	}
	if (rc < 0 || wire_frame_get(&in, &m, &err) <= 0)
		return rc == -2 ? NULL : raise_err(&err);
	return as_tuple(&m);
}

/* ---- sleeping ---- */

static PyObject *as_dict(const struct fork_result *r)
{
	return Py_BuildValue("{s:s,s:i,s:i,s:O,s:O}", "role", r->role, "stream", r->stream,
			     "control", r->control, "env", r->has_env ? Py_True : Py_False, "app",
			     r->has_app ? Py_True : Py_False);
}

static const struct fork_hooks hooks = { PyOS_BeforeFork, PyOS_AfterFork_Parent,
					 PyOS_AfterFork_Child };

static int kept_of(PyObject *list, struct fork_kept *out)
{
	Py_ssize_t n = PyList_Size(list);

	out->fds = mem_zero((size_t)n + 1, sizeof(int));
	for (out->n = 0; out->n < (size_t)n; out->n++) {
		/* borrowed */
		long fd = PyLong_AsLong(PyList_GetItem(list, (Py_ssize_t)out->n));

		if (fd < 0) {
			free(out->fds);
			return -1;
		}
		out->fds[out->n] = (int)fd;
	}
	return 0;
}

static PyObject *py_sleep(PyObject *self, PyObject *args)
{
	struct fork_result result;
	struct fork_kept kept;
	PyObject *list;
	struct err err;
	int control;

	if (!PyArg_ParseTuple(args, "iO!", &control, &PyList_Type, &list) ||
	    kept_of(list, &kept) < 0)
		return NULL;
	for (;;) {
		auto_msg struct wire_msg m;
		int rc = wire_recv(control, &m, &err);

		if (rc <= 0 || m.type != WIRE_FORK)
			_exit(rc == 0 ? 0 : 1); /* never run Python's exit in a zygote */
		if (fork_serve(control, &m, &hooks, &kept, &result) == 1) {
			free(kept.fds);
			return as_dict(&result);
		}
	}
}

static PyObject *py_adopt(PyObject *self, PyObject *args)
{
	struct fork_result result;
	struct err err = ERR_INIT;
	int stream;

	if (!PyArg_ParseTuple(args, "i", &stream))
		return NULL;
	if (fork_adopt(stream, &result, &err) < 0)
		return raise_err(&err);
	return as_dict(&result);
}

static PyObject *py_again(PyObject *self, PyObject *args)
{
	int stream;

	if (!PyArg_ParseTuple(args, "i", &stream))
		return NULL;
	again_serve(stream, &hooks);
	Py_RETURN_NONE;
}

static PyObject *py_leave(PyObject *self, PyObject *args)
{
	again_leave();
}

static struct preload_state *preloaded(void)
{
	preload_get get = (preload_get)dlsym(RTLD_DEFAULT, "pipsqueak_preload");

	return get ? get() : NULL;
}

static PyObject *py_getenv_names(PyObject *self, PyObject *args)
{
	struct preload_state *p = preloaded();
	PyObject *list = PyList_New(0);

	for (size_t i = 0; list && p && i < p->nnames; i++) {
		PyObject *name = PyUnicode_DecodeFSDefault(p->names[i]);

		if (!name || PyList_Append(list, name) < 0)
			Py_CLEAR(list);
		Py_XDECREF(name);
	}
	if (p)
		p->nnames = 0;
	return list;
}

static PyObject *py_atfork_cycle(PyObject *self, PyObject *args)
{
	struct preload_state *p = preloaded();

	fork_cycle();
	/* How many registrations did not fit: then this zygote must not fork. */
	return PyLong_FromSize_t(p ? p->lost : 0);
}

static int add_variable(PyObject *inside, const char *pair, Py_ssize_t len)
{
	const char *equals = memchr(pair, '=', (size_t)len);
	PyObject *name, *value;
	int rc = -1;

	if (!equals || equals == pair)
		return 0;
	putenv(mem_strndup(pair, (size_t)len)); /* it is the environment's from now on */
	name = PyBytes_FromStringAndSize(pair, equals - pair);
	value = PyBytes_FromStringAndSize(equals + 1, pair + len - equals - 1);
	if (name && value)
		rc = PyDict_SetItem(inside, name, value);
	Py_XDECREF(name);
	Py_XDECREF(value);
	return rc;
}

static PyObject *py_set_environment(PyObject *self, PyObject *args)
{
	PyObject *inside;
	const char *text, *end;
	Py_ssize_t len;

	if (!PyArg_ParseTuple(args, "O!y#", &PyDict_Type, &inside, &text, &len))
		return NULL;
	clearenv();
	PyDict_Clear(inside);
	for (; len > 0 && (end = memchr(text, '\0', (size_t)len)); text = end + 1) {
		if (add_variable(inside, text, end - text) < 0)
			return NULL;
		len -= end + 1 - text;
	}
	Py_RETURN_NONE;
}

/* CPython 3.12 and 3.13: none of the lower 32 bits of a count may be 0 (PEP 683). */
static PyObject *py_immortalize(PyObject *self, PyObject *list)
{
	Py_ssize_t n = PyList_Size(list);

	if (n < 0)
		return NULL;
	for (Py_ssize_t i = 0; i < n; i++)
		PyList_GetItem(list, i)->ob_refcnt = UINT32_MAX;
	Py_RETURN_NONE;
}

static PyObject *py_collapse(PyObject *self, PyObject *args)
{
	holes_fill();
	pages_collapse();
	Py_RETURN_NONE;
}

/* The interpreter's lock is held from the first close to the end: no thread of the script's runs
 * between. What reads its pipes sees their end now, not when the memory is freed. */
static PyObject *py_done(PyObject *self, PyObject *args)
{
	auto_msg struct wire_msg m;
	struct err err;
	unsigned int status, fd;

	if (!PyArg_ParseTuple(args, "II", &fd, &status))
		return NULL;
	if (fd)
		syscall(SYS_close_range, 0, fd - 1, 0);
	syscall(SYS_close_range, fd + 1, ~0U, 0);
	wire_init(&m, WIRE_DONE, 0);
	wire_put_u64(&m, WIRE_T_STATUS, status);
	if (wire_frame_send((int)fd, &m, &err) < 0)
		_exit(125);
	Py_RETURN_NONE;
}

static PyObject *py_exit(PyObject *self, PyObject *args)
{
	int code;

	if (!PyArg_ParseTuple(args, "i", &code))
		return NULL;
	_exit(code);
}

static PyObject *py_signal_exit(PyObject *self, PyObject *args)
{
	sigset_t set;
	int signo;

	if (!PyArg_ParseTuple(args, "i", &signo))
		return NULL;
	signal(signo, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, signo);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	kill(getpid(), signo);
	_exit(128 + signo);
}

static PyObject *py_clock_us(PyObject *self, PyObject *args)
{
	return PyLong_FromUnsignedLongLong(clock_us());
}

static PyMethodDef methods[] = {
	{ "sleep", py_sleep, METH_VARARGS,
	  "sleep(control, kept) -> dict: serve FORK requests; returns in each child, in its "
	  "sandbox, "
	  "where the descriptors of kept (files open for reading) are open anew" },
	{ "adopt", py_adopt, METH_VARARGS,
	  "adopt(stream) -> dict, as sleep(): a child that was forked ahead waits for who wants "
	  "it" },
	{ "again", py_again, METH_VARARGS,
	  "again(stream): be a spare that forks; returns in one child after another" },
	{ "leave", py_leave, METH_NOARGS, "leave(): the end of such a child" },
	{ "recv", py_recv, METH_VARARGS, "recv(fd) -> (type, id, fields); EOFError at the end" },
	{ "send", py_send, METH_VARARGS, "send(fd, type, id, fields): one frame" },
	{ "send_packet", py_send_packet, METH_VARARGS, "send_packet(fd, type, id, fields)" },
	{ "getenv_names", py_getenv_names, METH_NOARGS,
	  "names that C code asked getenv() for since the last call" },
	{ "immortalize", py_immortalize, METH_O, "immortalize(list): their counts change no more" },
	{ "atfork_cycle", py_atfork_cycle, METH_NOARGS,
	  "run libraries' prepare and parent handlers once; how many handlers were lost" },
	{ "exit", py_exit, METH_VARARGS, "exit(code): end at once" },
	{ "signal_exit", py_signal_exit, METH_VARARGS, "signal_exit(signo): die by this signal" },
	{ "set_environment", py_set_environment, METH_VARARGS,
	  "set_environment(os.environ._data, text): both environments, whole; NUL ends each" },
	{ "collapse", py_collapse, METH_NOARGS, "the heap into huge pages, where that can be" },
	{ "done", py_done, METH_VARARGS,
	  "done(stream, status): close all else and say that the script ended so" },
	{ "clock_us", py_clock_us, METH_NOARGS, "monotonic microseconds" },
	{ NULL, NULL, 0, NULL },
};

static struct PyModuleDef module = { PyModuleDef_HEAD_INIT, "_pipsqueak", NULL, -1, methods };

PyMODINIT_FUNC PyInit__pipsqueak(void)
{
	PyObject *m = PyModule_Create(&module);

#define X(name, value)                                         \
	if (m && PyModule_AddIntConstant(m, #name, value) < 0) \
		Py_CLEAR(m);
	WIRE_MESSAGES(X)
#undef X
#define X(name, value)                                              \
	if (m && PyModule_AddIntConstant(m, "T_" #name, value) < 0) \
		Py_CLEAR(m);
	WIRE_TAGS(X)
#undef X
	return m;
}
