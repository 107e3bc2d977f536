"""What Envoy prints, without what must not be kept."""

import re

from enginehouse.engines.process import OutputLog

_LOG_LINE = re.compile(rb"\[\d{4}-\d\d-\d\d ")


class EnvoyOutput(OutputLog):
    """Keeps log lines and nothing else.

    An Envoy that crashes also prints the headers and the buffered bytes of what it was doing: keys, prompts,
    completions.
    """

    def write(self, line: bytes) -> None:
        """Appends one line, if it is a log line."""
        if _LOG_LINE.match(line):
            super().write(line)
