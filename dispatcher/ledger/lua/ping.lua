-- Returns the ledger's clock in ms.
return clock()
