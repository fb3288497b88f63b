"""What workers do to a dispatch, from the request to its end.

Every function that needs the ledger raises `LedgerUnavailable` when Redis does not answer, and
`UnknownDispatch` when there is no such record. The sweeper has lost work done again.
"""
