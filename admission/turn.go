package admission

import "time"

const (
	// turnTime is what a turn on a rotating disk takes at most, at DefaultWeight: one seek of about 10 ms in it costs a
	// twentieth, and a round of ten flows ends within two seconds. A slow or throttled disk would need many seconds for a quantum
	// that is right for a fast one, and shares would not hold in any window that a person looks at.
	turnTime = 200 * time.Millisecond
	// minTurn amortises a seek on any disk that is worth reading from.
	minTurn = 2 << 20
	// paceSpan of work gives one value of the speed; half of the next one counts.
	paceSpan = 500 * time.Millisecond
)

// workSpeed measures how fast a device works while it has work.
type workSpeed struct {
	from  time.Time // since then the device works on something that has not been counted
	bytes int64
	busy  time.Duration
	speed float64 // bytes per second; 0: not known
}

// begin notes that a request has gone to the device, which had none before when idle.
func (p *workSpeed) begin(idle bool, now time.Time) {
	if idle || p.from.IsZero() {
		p.from = now
	}
}

// end notes that a request of so many bytes is done.
func (p *workSpeed) end(bytes int64, now time.Time) {
	p.bytes += max(bytes, 0)
	p.busy += max(0, now.Sub(p.from))
	p.from = now
	if p.busy < paceSpan {
		return
	}
	speed := float64(p.bytes) / p.busy.Seconds()
	if p.speed > 0 {
		speed = (speed + p.speed) / 2
	}
	p.speed, p.bytes, p.busy = speed, 0, 0
}

// quantumBytes is the quantum of now: on a rotating disk no more than it reads in turnTime.
func (s *Scheduler) quantumBytes() int64 {
	if !s.cfg.Rotating || s.work.speed == 0 {
		return s.cfg.QuantumBytes
	}
	return min(s.cfg.QuantumBytes, max(minTurn, int64(s.work.speed*turnTime.Seconds())))
}
