"""The logger of the project. A run adds the handlers (utils.run); without a run, only warnings are shown."""

import logging

log = logging.getLogger("beyond_fixed_classes")
logging.raiseExceptions = False  # a full disk is reported once, by the writer of a needed file, not at every log line
