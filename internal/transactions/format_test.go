package transactions

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/transactions/txn"
)

var sample = txn.Record{ProducerID: 4711, PreviousID: 12, NextID: 13, Epoch: 32767, Timeout: 61 * time.Second, State: txn.PrepareCommit,
	Partitions: []txn.Partition{{Topic: "orders", Index: 0}, {Topic: "orders", Index: 7}, {Topic: "stock", Index: 3}},
	Updated:    time.UnixMilli(1_700_000_000_123), Started: time.UnixMilli(1_700_000_000_001), ClientProtocol: 2, LastEpoch: txn.NoEpoch}

func TestRecordsAreReadBack(t *testing.T) {
	plain := sample
	plain.State, plain.Partitions, plain.Started, plain.PreviousID, plain.NextID, plain.ClientProtocol = txn.Empty, nil, time.Time{}, -1, -1, 0
	for _, want := range []txn.Record{sample, plain} {
		got, err := readValue(appendValue(nil, want))
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%v\n%s", err, diff)
		}
	}
	if id, err := readKey(appendKey(nil, "tx-ä")); id != "tx-ä" || err != nil {
		t.Errorf("%q, %v", id, err)
	}
}

// What we write is what a library that knows the records reads, and the other way round.
func TestRecordsAreKafkas(t *testing.T) {
	var v kmsg.TxnMetadataValue
	if err := v.ReadFrom(appendValue(nil, sample)); err != nil {
		t.Fatal(err)
	}
	if v.Version != 1 || v.ProducerID != 4711 || v.ProducerEpoch != 32767 || v.TimeoutMillis != 61_000 || v.State != kmsg.TransactionStatePrepareCommit ||
		v.PreviousProducerID != 12 || v.NextProducerID != 13 || v.ClientTransactionVersion != 2 || v.StartTimestamp != 1_700_000_000_001 ||
		len(v.Topics) != 2 || len(v.Topics[0].Partitions) != 2 || v.Topics[1].Partitions[0] != 3 {
		t.Errorf("%+v", v)
	}
	for version := int16(0); version <= 1; version++ {
		v.Version = version
		got, err := readValue(v.AppendTo(nil))
		want := sample
		if version == 0 { // has no room for these
			want.PreviousID, want.NextID, want.ClientProtocol = -1, -1, 0
		}
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("version %d: %v\n%s", version, err, diff)
		}
	}
	key := kmsg.NewTxnMetadataKey()
	key.TransactionalID = "tx"
	if got := appendKey(nil, "tx"); !bytes.Equal(got, key.AppendTo(nil)) {
		t.Errorf("key %x", got)
	}
}

func FuzzReadValue(f *testing.F) {
	f.Add(appendValue(nil, sample))
	f.Add([]byte{0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := readValue(b)
		if err != nil {
			return
		}
		if len(r.Partitions) > len(b) {
			t.Fatalf("%d partitions of %d bytes", len(r.Partitions), len(b))
		}
		_, _ = readKey(b)
	})
}
