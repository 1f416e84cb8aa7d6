"""No test here measures time: on a loaded machine an example may take any."""

from hypothesis import settings

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
