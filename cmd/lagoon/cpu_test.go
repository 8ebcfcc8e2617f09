package main

import (
	"testing"
	"time"

	"lagoon/admission"
)

func TestParsePressure(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"some avg10=6.90 avg60=4.85 avg300=6.29 total=4757976465\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n": 4757976465 * time.Microsecond,
		"some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n":                                                          0,
	} {
		if got, ok := parsePressure([]byte(text)); !ok || got != want {
			t.Errorf("%q: %s, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "some", "some total=x\n", "full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"} {
		if got, ok := parsePressure([]byte(text)); ok {
			t.Errorf("%q: %s", text, got)
		}
	}
}

// TestMachineCPU_SchedLatencies: the first call gives nothing, goroutines that ran since are in the next.
func TestMachineCPU_SchedLatencies(t *testing.T) {
	var c machineCPU
	var l admission.Latencies
	c.SchedLatencies(&l)
	if n := l.Total(); n != 0 {
		t.Fatalf("%d counted before the beginning", n)
	}
	for range 1000 { // the runtime counts one in eight
		done := make(chan struct{})
		go close(done)
		<-done
	}
	c.SchedLatencies(&l)
	if l.Total() == 0 {
		t.Fatal("nothing counted")
	}
}
