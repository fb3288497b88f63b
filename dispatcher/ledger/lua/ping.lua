-- Answers with Redis's clock in ms.
return clock()
