"""C extensions made by the tests: of one that does not say so, the GIL comes back on.

The interpreter turns it on while it imports any extension module, and leaves it on for good when
the module lacks the slot `Py_MOD_GIL_NOT_USED`.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

_SOURCE = """
#include <Python.h>
#include <time.h>

static PyModuleDef_Slot slots[] = {
#ifdef SAFE
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef modules[COUNT] = {};

static PyObject *make(int number, const char *name) {
    struct PyModuleDef fresh = {PyModuleDef_HEAD_INIT, .m_name = name, .m_slots = slots};
    struct timespec pause = {0, PAUSE_MS * 1000000};
    Py_BEGIN_ALLOW_THREADS
    nanosleep(&pause, NULL);
    Py_END_ALLOW_THREADS
    modules[number] = fresh;
    return PyModuleDef_Init(&modules[number]);
}
"""
_INIT = 'PyMODINIT_FUNC PyInit_{name}(void) {{ return make({number}, "{name}"); }}\n'


def make_extensions(folder: Path, *names: str, safe: bool, pause_ms: int = 0) -> None:
    """Modules of these names in `folder`; each import takes `pause_ms`, with the GIL on.

    Skips the test where nothing can be compiled.
    """
    include = Path(sysconfig.get_path("include"))
    configured = shlex.split(str(sysconfig.get_config_var("CC") or "cc"))[0]
    compiler = shutil.which(configured) or shutil.which("cc")
    if compiler is None or not (include / "Python.h").exists():
        pytest.skip("there is no C compiler, or this Python came without its headers")
    inits = (_INIT.format(name=name, number=number) for number, name in enumerate(names))
    source, library = folder / f"{names[0]}.c", folder / f"lib{names[0]}.so"
    source.write_text(_SOURCE + "".join(inits))
    flags = ["-shared", "-fPIC", f"-I{include}", f"-DCOUNT={len(names)}", f"-DPAUSE_MS={pause_ms}"]
    flags += ["-DSAFE"] if safe else []
    subprocess.run([compiler, *flags, "-o", library, source], check=True, timeout=60)
    for name in names:
        (folder / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}").symlink_to(library)
