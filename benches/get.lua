-- Sends GETs, to each of the paths in turn that are arguments after `--`; and one line of JSON as post.lua writes it.
local requests, number = {}, 0

function init(paths)
   for place, path in ipairs(paths) do
      requests[place] = wrk.format("GET", path)
   end
end

function request()
   number = number % #requests + 1
   return requests[number]
end

-- `status` counts answers of 400 and above, `timeout` those that took longer than wrk's timeout.
function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      'summary {"requests": %d, "microseconds": %d, "connect": %d, "read": %d, "write": %d, "status": %d, ' ..
      '"timeout": %d, "p50_us": %d, "p90_us": %d, "p99_us": %d, "max_us": %d}\n',
      summary.requests, summary.duration, errors.connect, errors.read, errors.write, errors.status, errors.timeout,
      latency:percentile(50), latency:percentile(90), latency:percentile(99), latency.max))
end
