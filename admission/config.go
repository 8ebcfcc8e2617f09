package admission

import (
	"errors"
	"fmt"
	"time"
)

// Config is the policy of Readers. The zero value of a field means its default.
type Config struct {
	// MinBytes and MinAge are `lagging_when.min_bytes` and `min_age`: a reader is outside the window when it is behind the
	// end by more than MinBytes AND what it reads next is older than MinAge. Both, because either alone is harmless:
	// seconds of a fast topic are what real-time readers have in flight, and hours of a slow one are a few pages.
	// Defaults 256 MiB and 60 s.
	MinBytes int64
	MinAge   time.Duration
	// SettleFor is how long a reader has to stay below half of the window to be real-time again. Default 5 s.
	SettleFor time.Duration
	// StallAfter without progress, although there is data and nothing of ours held it back, makes a reader stalled.
	// Default 30 s.
	StallAfter time.Duration
	// StopAfter without a fetch makes it stopped. Default 2 min.
	StopAfter time.Duration
	// ForgetAfter without a fetch drops it. Default 1 h.
	ForgetAfter time.Duration
	// MaxReaders bounds the registry; beyond it the reader that asked longest ago is dropped, which loses its rates
	// and nothing else. Default 10,000 (about 1 KiB each).
	MaxReaders int
}

func (c Config) withDefaults() Config {
	setDefault(&c.MinBytes, 256<<20)
	setDefault(&c.MinAge, 60*time.Second)
	setDefault(&c.SettleFor, 5*time.Second)
	setDefault(&c.StallAfter, 30*time.Second)
	setDefault(&c.StopAfter, 2*time.Minute)
	setDefault(&c.ForgetAfter, time.Hour)
	setDefault(&c.MaxReaders, 10_000)
	return c
}

// Validate checks the configuration with its defaults filled in and joins all faults. Errors: ErrConfig.
func (c Config) Validate() error {
	c = c.withDefaults()
	return errors.Join(
		within("MinBytes", c.MinBytes, 1, 1<<60),
		within("MinAge", c.MinAge, 1, 365*24*time.Hour),
		within("SettleFor", c.SettleFor, 1, time.Hour),
		within("StallAfter", c.StallAfter, 1, 24*time.Hour),
		within("StopAfter", c.StopAfter, c.StallAfter, 24*time.Hour),
		within("ForgetAfter", c.ForgetAfter, c.StopAfter, 30*24*time.Hour),
		within("MaxReaders", c.MaxReaders, 1, 10_000_000),
	)
}

// DeviceConfig describes one device to its Scheduler. The zero value of a field means its default, except the rate.
type DeviceConfig struct {
	Name string // the tier's name, for people and metrics
	// BytesPerSecond is the cold budget of the device, reads and migrations together. 0: unlimited.
	BytesPerSecond int64
	// BurstBytes may pass at once after a pause. Default: 100 ms of the rate, at least QuantumBytes.
	BurstBytes int64
	// QuantumBytes is what a flow of DefaultWeight may read before it is the next one's turn. Default 4 MiB. Large
	// amortises seeks on a rotating disk, small keeps turns short.
	QuantumBytes int64
	// Rotating: one place of the disk at a time. Requests go by position, in runs of at most QuantumBytes; a second one is in
	// flight only where it follows on the first, so that the head need not wait for us.
	Rotating bool
	// Deadline is how long a request on a rotating disk may wait before it goes first, whatever its position. Default 3 s: a
	// sweep over a dozen runs.
	Deadline time.Duration
	// MaxInFlight bounds the requests that the device works on. Default 8; 1 makes one sequential stream.
	MaxInFlight int
	// MigrationShare is the part of the bytes that migrations are sure of while reads are waiting too, 0..0.5. They get
	// whatever reads leave beyond that. Default 0.05.
	MigrationShare float64
	// MaxQueued and MaxFlows bound the queue. Defaults 16,384 and 4,096.
	MaxQueued, MaxFlows int
}

func (c DeviceConfig) withDefaults() DeviceConfig {
	setDefault(&c.QuantumBytes, 4<<20)
	setDefault(&c.BurstBytes, max(c.BytesPerSecond/10, c.QuantumBytes))
	setDefault(&c.MaxInFlight, 8)
	setDefault(&c.Deadline, 3*time.Second)
	setDefault(&c.MigrationShare, 0.05)
	setDefault(&c.MaxQueued, 16_384)
	setDefault(&c.MaxFlows, 4_096)
	return c
}

// Validate checks the configuration with its defaults filled in and joins all faults. Errors: ErrConfig.
func (c DeviceConfig) Validate() error {
	c = c.withDefaults()
	return errors.Join(
		rate("BytesPerSecond", c.BytesPerSecond),
		within("BurstBytes", c.BurstBytes, 1, 1<<40),
		within("QuantumBytes", c.QuantumBytes, 4096, MaxRequestBytes),
		within("MaxInFlight", c.MaxInFlight, 1, 4096),
		within("Deadline", c.Deadline, time.Millisecond, time.Minute),
		within("MigrationShare", c.MigrationShare, 0.001, 0.5),
		within("MaxQueued", c.MaxQueued, 1, 10_000_000),
		within("MaxFlows", c.MaxFlows, 1, 1_000_000),
	)
}

// LimitsConfig holds the caps that span devices. Zero: no cap.
type LimitsConfig struct {
	GlobalBytesPerSecond    int64 // all cold reads together (catchup_total)
	FlowBytesPerSecond      int64 // each group or client that has no cap of its own (per_reader.max)
	MigrationBytesPerSecond int64 // all migrations together
}

// Validate joins all faults. Errors: ErrConfig.
func (c LimitsConfig) Validate() error {
	return errors.Join(
		rate("GlobalBytesPerSecond", c.GlobalBytesPerSecond),
		rate("FlowBytesPerSecond", c.FlowBytesPerSecond),
		rate("MigrationBytesPerSecond", c.MigrationBytesPerSecond),
	)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func rate(name string, v int64) error {
	if v == 0 {
		return nil
	}
	return within(name, v, MinCapBytesPerSecond, 1<<50)
}

func within[T int | int64 | float64 | time.Duration](name string, v, low, high T) error {
	if v >= low && v <= high { // NaN fails
		return nil
	}
	return fmt.Errorf("%w: %s = %v is not in %v..%v", ErrConfig, name, v, low, high)
}
