"""The demonstration: a training run that loses workers, beside the same run left in peace.

``happenings.py`` is what the demo sees of a job, ``conductor.py`` (pure) decides when which fault
happens, ``verdicts.py`` judges the records, ``screen.py`` shows progress, ``job.py`` starts the
launcher and acts on its workers, ``show.py`` puts them together.
"""
