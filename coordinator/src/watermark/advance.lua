-- The rule of rule.rs, atomically for a whole report.
-- KEYS[1]: hash of one sink. ARGV: field, incarnation, next offset, topic id, entry; repeated.
-- An entry is "incarnation next topic_id key_schema value_schema" ("-" for no schema).

-- Lua numbers are doubles: whole numbers are compared as text, so that none is rounded.
local function less(a, b)
  if #a ~= #b then return #a < #b end
  return a < b
end

local stored_count = 0
for i = 1, #ARGV, 5 do
  local field, incarnation, next_offset, topic, entry =
    ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  local stored = redis.call('HGET', KEYS[1], field)
  local store = true
  if stored then
    local old_incarnation, old_next, old_topic =
      string.match(stored, '^(%d+) (%d+) (%S+) %S+ %S+$')
    -- An entry that is not ours is replaced: a live report is worth more.
    if old_incarnation then
      store = less(old_incarnation, incarnation)
        or (old_incarnation == incarnation and old_topic == topic and less(old_next, next_offset))
    end
  end
  if store then
    redis.call('HSET', KEYS[1], field, entry)
    stored_count = stored_count + 1
  end
end
return stored_count
