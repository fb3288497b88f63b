-- Wakes workers by the messages that were held back, in the order in which they were written.
-- KEYS: where they are held back, queue.
while redis.call('LMOVE', KEYS[1], KEYS[2], 'RIGHT', 'LEFT') do end
