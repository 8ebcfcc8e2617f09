package bench

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestLastRecordsAreHandedOver: what was due when the end came belongs to its phase, also when the clock's tick was late.
func TestLastRecordsAreHandedOver(t *testing.T) {
	s := testStream(10, 2)
	s.start = time.Now().Add(-time.Second).UnixNano()
	s.late = newRecorder("generator", time.Now())
	cl, err := s.client([]string{"127.0.0.1:1"}, 0) // nobody answers there: what is handed over stays with the client
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second) // nobody answers
	defer cancel()
	stop, end := context.WithCancel(ctx)
	end()
	if err := s.produce(ctx, stop, cl); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if s.stopped < 11 || !s.ended {
		t.Errorf("%d records were handed over, 11 were due", s.stopped)
	}
}
