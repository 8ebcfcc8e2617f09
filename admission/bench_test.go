package admission_test

import (
	"fmt"
	"testing"
	"time"

	"lagoon/admission"
)

func BenchmarkReaders_Observe(b *testing.B) {
	for _, n := range []int{1, 10_000} {
		b.Run(fmt.Sprint("readers=", n), func(b *testing.B) {
			r := must(admission.NewReaders(admission.Config{}))(b)
			keys := make([]admission.ReaderKey, n)
			for i := range keys {
				keys[i] = admission.ReaderKey{Group: "warehouse", Client: "wh-loader-1", Topic: fmt.Sprint("orders-", i/100), Partition: int32(i % 100)}
				r.Observe(keys[i], admission.Position{EndOffset: 1 << 40, BehindBytes: 9 << 30, BehindAge: time.Hour}, epoch)
			}
			now, i := epoch, 0
			b.ReportAllocs()
			for b.Loop() {
				now = now.Add(time.Microsecond)
				r.Observe(keys[i%n], admission.Position{Offset: int64(i), EndOffset: 1 << 40, BehindBytes: 9 << 30, BehindAge: time.Hour}, now)
				i++
			}
		})
	}
}

func BenchmarkReaders_Served(b *testing.B) {
	r := must(admission.NewReaders(admission.Config{}))(b)
	key := admission.ReaderKey{Group: "warehouse", Client: "wh-loader-1", Topic: "orders", Partition: 3}
	r.Observe(key, admission.Position{}, epoch)
	now := epoch
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Microsecond)
		r.Served(key, admission.Hot, 1<<20, now)
	}
}

func BenchmarkDecide(b *testing.B) {
	read := admission.Read{State: admission.Lagging, BudgetOK: true, Sealed: true}
	b.ReportAllocs()
	for b.Loop() {
		if admission.Decide(read).Lane != admission.Bypass {
			b.Fatal("lane")
		}
	}
}

// One cycle of a saturated device: a request starts, another ends and its flow asks again.
func BenchmarkScheduler_Next(b *testing.B) {
	for _, dim := range []struct{ flows, capped int }{{1, 0}, {16, 0}, {1000, 0}, {1000, 999}} {
		b.Run(fmt.Sprintf("flows=%d/capped=%d", dim.flows, dim.capped), func(b *testing.B) {
			s, l := newScheduler(b, admission.DeviceConfig{MaxInFlight: 1}, admission.LimitsConfig{})
			id := uint64(0)
			now := epoch
			enqueue := func(flow admission.Subject) {
				id++
				if err := s.Enqueue(admission.Request{ID: id, Flow: flow, Topic: "orders", Bytes: 1 << 20}, now); err != nil {
					b.Fatal(err)
				}
			}
			for i := range dim.flows {
				if i < dim.capped {
					if err := l.Configure(group(i), admission.Cap{BytesPerSecond: 1 << 20}); err != nil {
						b.Fatal(err)
					}
				}
				for range 4 {
					enqueue(group(i))
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				now = now.Add(10 * time.Millisecond)
				req, _, ok := s.Next(now)
				if !ok {
					b.Fatal("nothing to do")
				}
				s.Done(req.ID, req.Bytes, now)
				enqueue(req.Flow)
			}
		})
	}
}
