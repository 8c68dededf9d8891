# SPDX-License-Identifier: Apache-2.0
"""One line below a traceback: which permission, or which package, would have helped.

Runs in: children of `pipsqueak run`, when a script ends by an exception. Silent when in doubt.
"""
import os
import sys

# Import names that are not the name of their package.
PACKAGES = {
    "Crypto": "pycryptodome", "Cryptodome": "pycryptodomex", "Levenshtein": "levenshtein",
    "MySQLdb": "mysqlclient", "OpenGL": "pyopengl", "OpenSSL": "pyopenssl", "PIL": "pillow",
    "Xlib": "python-xlib", "absl": "absl-py", "attr": "attrs", "bs4": "beautifulsoup4",
    "bson": "pymongo", "cairo": "pycairo", "cv2": "opencv-python", "dateutil": "python-dateutil",
    "dns": "dnspython", "docx": "python-docx", "dotenv": "python-dotenv", "faiss": "faiss-cpu",
    "fitz": "pymupdf", "gi": "pygobject", "git": "gitpython", "github": "pygithub",
    "googleapiclient": "google-api-python-client", "gridfs": "pymongo", "grpc": "grpcio",
    "jenkins": "python-jenkins", "jose": "python-jose", "jwt": "pyjwt", "kafka": "kafka-python",
    "ldap": "python-ldap", "magic": "python-magic", "memcache": "python-memcached",
    "mpl_toolkits": "matplotlib", "multipart": "python-multipart", "nacl": "pynacl",
    "osgeo": "gdal", "pkg_resources": "setuptools", "pptx": "python-pptx",
    "psycopg2": "psycopg2-binary", "pylab": "matplotlib", "pythonjsonlogger": "python-json-logger",
    "rest_framework": "djangorestframework", "ruamel": "ruamel.yaml", "serial": "pyserial",
    "skimage": "scikit-image", "sklearn": "scikit-learn", "slugify": "python-slugify",
    "snappy": "python-snappy", "socks": "pysocks", "speech_recognition": "speechrecognition",
    "telegram": "python-telegram-bot", "tlz": "toolz", "usb": "pyusb", "vlc": "python-vlc",
    "websocket": "websocket-client", "wx": "wxpython",
    "yaml": "pyyaml", "zmq": "pyzmq",
}


def hint(state, e, flags):
    """None: it was something else, or it is allowed already."""
    try:
        return find_hint(state, e, flags)
    except Exception:
        return None  # the traceback stands for itself


def find_hint(state, e, flags):
    if isinstance(e, ModuleNotFoundError):
        return of_module(e)
    if "allow-all" in flags:
        return None
    if isinstance(e, KeyError):
        return of_variable(e, flags)
    if "allow-net" not in flags and any(is_network(x) for x in chain(e)):
        return "the network needs --allow-net (or -A)"
    if isinstance(e, OSError):
        return of_path(e, flags)
    return None


def chain(e):
    """The exception and those it was raised from or during."""
    for _ in range(16):
        if e is None:
            return
        yield e
        if isinstance(getattr(e, "reason", None), BaseException):
            yield e.reason
        e = e.__cause__ or e.__context__


def dist_of(name):
    """The package that most likely provides a module; None: none can be named."""
    if name in PACKAGES:
        return PACKAGES[name]
    if name == "google.protobuf":
        return "protobuf"
    if name.startswith(("google.cloud.", "azure.")):  # one package for each part
        return "-".join(name.split(".")[:3])
    if "." in name or name in ("google", "azure"):
        return None
    return name.replace("_", "-")


def of_module(e):
    name = e.name
    if not name or name in sys.builtin_module_names or name in sys.modules:
        return None
    if name.split(".")[0] in getattr(sys, "stdlib_module_names", ()):
        return None
    dist = dist_of(name)
    return dist and "no package given provides '%s'; try --with %s" % (name, dist)


def of_variable(e, flags):
    name = e.args[0] if e.args else None
    tb = e.__traceback__
    while tb is not None and tb.tb_next is not None:
        tb = tb.tb_next
    if tb is None or tb.tb_frame.f_code is not type(os.environ).__getitem__.__code__:
        return None
    if not isinstance(name, str) or "env=" + name in flags or "allow-env" in flags:
        return None
    return "to pass the variable on, give --allow-env=%s (or -A)" % name


def is_network(e):
    import errno

    if type(e).__name__ == "gaierror" or type(e).__name__ == "NameResolutionError":
        return True
    return isinstance(e, OSError) and e.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH)


def given(path, flags, word):
    for flag in flags:
        if flag.startswith(word + "="):
            root = flag[len(word) + 1:].rstrip("/")
            if path == root or path.startswith(root + "/"):
                return True
    return False


def is_outside(path):
    """Is the nearest directory that exists only part of the sandbox's own root?"""
    while not os.path.isdir(path) and path != "/":
        path = os.path.dirname(path)
    return os.stat(path).st_dev == os.stat("/").st_dev


def of_path(e, flags):
    import errno

    path = e.filename
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    if not isinstance(path, str):
        return None
    typed_absolute = path.startswith(("/", ".."))
    path = os.path.abspath(path)
    if e.errno == errno.ENOENT:
        if typed_absolute and is_outside(path) and not given(path, flags, "read"):
            return "what is outside needs --allow-read=%s, or --allow-write to write (or -A)" % path
        return None
    if e.errno not in (errno.EROFS, errno.EACCES, errno.EPERM) or given(path, flags, "write"):
        return None
    if e.errno != errno.EROFS and os.path.exists(path) and not os.access(path, os.R_OK):
        return None  # its owner's business
    return "writing here needs --allow-write=%s (or -A)" % path
