-- Saves that a round of reconciling is complete now.
redis.call('SET', NAMESPACE .. 'last_round', string.format('%.6f', now))
