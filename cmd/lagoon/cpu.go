package main

import (
	"bytes"
	"os"
	"runtime/metrics"
	"strconv"
	"time"

	"lagoon/admission"
)

// machineCPU is partition.CPU of this machine: the kernel's pressure stall information, and the Go scheduler's own histogram. One
// caller at a time.
type machineCPU struct {
	sample []metrics.Sample
	counts []uint64 // of the histogram at the last call
}

// pressureFile counts in microseconds for how long some task has waited for a core. It is of the machine and not of a container:
// the clients that compete for the cores run outside.
const pressureFile = "/proc/pressure/cpu"

// Waited reads the pressure. Not ok where the kernel keeps none.
func (*machineCPU) Waited() (time.Duration, bool) {
	text, err := os.ReadFile(pressureFile)
	if err != nil {
		return 0, false
	}
	return parsePressure(text)
}

// parsePressure reads the total of the line "some avg10=0.00 avg60=0.00 avg300=0.00 total=4757976465".
func parsePressure(text []byte) (time.Duration, bool) {
	some, _, _ := bytes.Cut(text, []byte("\n"))
	_, total, found := bytes.Cut(some, []byte("total="))
	us, err := strconv.ParseInt(string(total), 10, 64)
	return time.Duration(us) * time.Microsecond, found && err == nil && bytes.HasPrefix(some, []byte("some "))
}

// SchedLatencies adds what the runtime has counted since the last call; nothing the first time.
func (c *machineCPU) SchedLatencies(into *admission.Latencies) {
	if c.sample == nil {
		c.sample = []metrics.Sample{{Name: "/sched/latencies:seconds"}}
	}
	metrics.Read(c.sample)
	if c.sample[0].Value.Kind() != metrics.KindFloat64Histogram {
		return
	}
	h := c.sample[0].Value.Float64Histogram()
	first := len(c.counts) != len(h.Counts)
	if first {
		c.counts = make([]uint64, len(h.Counts))
	}
	for i, n := range h.Counts {
		if n > c.counts[i] && !first {
			into.Add(time.Duration(max(h.Buckets[i], 0)*float64(time.Second)), uint32(min(n-c.counts[i], 1<<31)))
		}
		c.counts[i] = n
	}
}
