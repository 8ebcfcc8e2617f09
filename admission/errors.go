package admission

import "errors"

// Configuration and overrides. Each is wrapped with the field or name at fault and the remedy.
var (
	// ErrConfig: a Config, DeviceConfig or LimitsConfig holds a value outside its limits.
	ErrConfig = errors.New("admission: bad configuration")
	// ErrOverride: an Override is incomplete, out of range or already expired.
	ErrOverride = errors.New("admission: bad override")
	// ErrTooManyOverrides: the set is full; delete some first.
	ErrTooManyOverrides = errors.New("admission: too many overrides")
	// ErrUnknownName: a word that Parse… does not know.
	ErrUnknownName = errors.New("admission: unknown name")
)

// Enqueue. A refused request is not queued; the caller treats it as deferred and asks again later.
var (
	// ErrBadRequest: size, kind or flow of the request makes no sense.
	ErrBadRequest = errors.New("admission: bad request")
	// ErrDuplicateID: a request with this id is queued or in flight.
	ErrDuplicateID = errors.New("admission: request id in use")
	// ErrQueueFull: the device's queue holds MaxQueued requests or MaxFlows flows.
	ErrQueueFull = errors.New("admission: device queue is full")
)
