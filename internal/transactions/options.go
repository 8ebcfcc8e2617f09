package transactions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lagoon/internal/statetopic"
	"lagoon/internal/transactions/txn"
	"lagoon/segment"
)

// Topic is the internal topic that transactional ids are kept in.
const Topic = "__transaction_state"

// Marker is what ends a transaction in one partition.
type Marker struct {
	ProducerID int64
	Epoch      int16
	segment.Marker
	// AboveTxn says that Epoch is above that of the transaction (KIP-1228): a partition refuses the marker if it is not.
	AboveTxn bool
}

// ErrGone is what WriteMarker says of a partition that does not exist any more: its part of the transaction went with it.
var ErrGone = errors.New("transactions: partition is gone")

// Options configure a Coordinator. Zero values stand for the defaults named at each field.
type Options struct {
	MaxTimeout    time.Duration // longest timeout a client may ask for; 0: 15 min (transaction.max.timeout.ms)
	Retention     time.Duration // an id that nobody uses is forgotten after this; 0: 7 days (transactional.id.expiration.ms)
	CheckInterval time.Duration // looking for what has run for too long; 0: 10 s (transaction.abort.timed.out.transaction.cleanup.interval.ms)
	// WriteTimeout bounds the wait for the durability of a record; 0: 5 s. SettleTimeout is how long a request waits for the markers
	// of the transaction before, instead of being sent away; 0: 200 ms.
	WriteTimeout, SettleTimeout time.Duration
	// MaxBytes bounds the memory of all ids: new ones are refused above it. 0: 256 MiB.
	MaxBytes int64

	Log func(partition int32) (statetopic.Log, bool) // required
	// WriteMarker appends a marker to a partition and gives the wait for its durability. It is asked again after an error, but for
	// ErrGone and segment.ErrInvalidProducerEpoch, which says that the partition has seen a later epoch. Required.
	WriteMarker func(ctx context.Context, p txn.Partition, m Marker) (wait func(context.Context) error, err error)
	ProducerID  func() (int64, error) // a new one; required
	Logger      *slog.Logger          // required
	Registerer  prometheus.Registerer
	Now         func() time.Time // nil: time.Now
}

func (o Options) withDefaults() Options {
	o.MaxTimeout = cmp.Or(o.MaxTimeout, 15*time.Minute)
	o.Retention = cmp.Or(o.Retention, 7*24*time.Hour)
	o.CheckInterval = cmp.Or(o.CheckInterval, 10*time.Second)
	o.WriteTimeout = cmp.Or(o.WriteTimeout, 5*time.Second)
	o.SettleTimeout = cmp.Or(o.SettleTimeout, 200*time.Millisecond)
	o.MaxBytes = cmp.Or(o.MaxBytes, 256<<20)
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Validate names every fault at once.
func (o Options) Validate() error {
	var faults []error
	need := func(ok bool, what string) {
		if !ok {
			faults = append(faults, fmt.Errorf("transactions options: %s", what))
		}
	}
	need(o.Log != nil && o.WriteMarker != nil && o.ProducerID != nil && o.Logger != nil, "Log, WriteMarker, ProducerID and Logger are required")
	need(o.MaxTimeout > 0 && o.Retention > 0 && o.CheckInterval > 0 && o.WriteTimeout > 0 && o.SettleTimeout > 0, "times must be positive")
	need(o.MaxBytes > 0, "MaxBytes must be positive")
	return errors.Join(faults...)
}
