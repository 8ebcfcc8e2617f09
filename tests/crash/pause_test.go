package crash

import "time"

// pause lets the real processes run on: between two looks at what only they know, and for the random length of a load before a
// kill. Nothing is asserted to have happened by then.
func pause(d time.Duration) { <-time.After(d) }
