"""Testing: a clock by hand, a bad network, and the suite that every backend must pass.

First file  `clock.py`; then `conformance.py`.
"""

from penstock.testing.clock import ManualClock
from penstock.testing.proxy import TcpProxy

__all__ = ["ManualClock", "TcpProxy"]
