-- The routes of one user that have not expired, as JSON; nil if nothing is known of him.
-- KEYS[1] is his hash, as write.lua leaves it. The clock is the server's, as it is there.
local all = redis.call('HGETALL', KEYS[1])
if #all == 0 then return false end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local routes = {}
for i = 1, #all, 2 do
	if all[i] ~= '' and (tonumber(string.sub(all[i + 1], 22, 34)) or 0) > now then
		routes[#routes + 1] = string.sub(all[i + 1], 36)
	end
end
return routes
