-- Returns the reports that are still fresh and forgets the others.
local reports = KEYS[1]
return fresh_reports(reports, clock())
