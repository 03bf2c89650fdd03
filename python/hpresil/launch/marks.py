"""How a worker's log marks the traceback that ended the worker."""

BEGIN_MARK = "-------- hpresil: this worker fails with"
END_MARK = "-------- hpresil: end of the traceback"
