-- Tells how far the history is, and the token of its last change.
return {standing(), revision, redis.call('LINDEX', history, -1) or ''}
