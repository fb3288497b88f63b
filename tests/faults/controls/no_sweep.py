"""What if nobody swept? This stands in for beat: it says that it sweeps, and does not."""

from __future__ import annotations

import time

from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import reports
from dispatcher.ledger.client import Ledger
from dispatcher.settings import CommonSettings, load


def main() -> None:
    ledger = Ledger(load(CommonSettings))
    while True:
        try:
            # Or a worker would sweep in beat's place.
            ledger.run(reports.report_alive(reports.SWEEPER))
        except LedgerUnavailable as error:
            print(error, flush=True)
        time.sleep(1)


if __name__ == "__main__":
    main()
