-- Answers with Redis's clock in ms.
return (read_clock())
