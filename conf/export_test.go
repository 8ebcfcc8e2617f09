package conf

import "time"

// ShortenPipeTime changes how long a pipe is read.
func ShortenPipeTime(d time.Duration) { pipeTime = d }
