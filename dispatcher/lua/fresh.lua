-- KEYS: a hash of reports. Returns the reports that are still fresh and forgets the others.
return fresh_reports(KEYS[1], clock())
