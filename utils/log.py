"""The project's logger. Handlers come with a run (utils.run); without one it is silent but for warnings."""

import logging

log = logging.getLogger("beyond_fixed_classes")
logging.raiseExceptions = False  # a full disk or a closed pipe is told once, by what needs the file, not at each line
