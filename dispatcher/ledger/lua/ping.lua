-- Returns Redis's clock in ms.
return clock()
