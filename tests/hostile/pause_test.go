package hostile

import "time"

// pause lets the real broker run on between two looks at what only it knows. Nothing is asserted to have happened by then.
func pause(d time.Duration) { <-time.After(d) }
