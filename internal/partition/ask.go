package partition

import "time"

// Plans go by what is known of segments: when their records came. After a start, and of segments whose records have no time, that is on the
// device, which may not answer. So planners look at what is in memory, and what is missing there is asked for beside them.

// questions are by whom they can be answered.
type questions map[*logDir][]func()

// askWait is how long a plan waits for answers.
const askWait = time.Second

// ask has the directories answer, side by side, and waits askWait for them. One that has had others for as long is not asked.
func (s *Store) ask(q questions) {
	var waits []chan struct{}
	for _, d := range s.dirs {
		now := time.Now()
		if len(q[d]) == 0 || d.asksOnWay.age(now) >= askWait || s.ctx.Err() != nil {
			continue
		}
		done, answered := make(chan struct{}), d.asksOnWay.begin(now)
		waits = append(waits, done)
		s.wg.Go(func() {
			defer close(done)
			defer answered()
			for _, answer := range q[d] {
				if s.ctx.Err() != nil {
					return
				}
				end := s.work(d)
				answer()
				end()
			}
		})
	}
	awaitAll(waits, askWait)
}

// age is what memory has of the age of a sealed segment: its newest timestamp, -1 without, and where that tells nothing at nowMs the file's, else 0.
func (s *logSegment) age(nowMs int64) (newestMs, fileMs int64, known bool) {
	_, newestMs, _, known = s.r.KnownTimestamps()
	if known && newestMs >= 0 && newestMs <= nowMs {
		return newestMs, 0, true
	}
	fileMs = s.fileMs.Load()
	return newestMs, fileMs, fileMs > 0
}

// learnAge asks the device for it.
func (s *logSegment) learnAge(nowMs int64) {
	if !s.r.Acquire() {
		return
	}
	defer s.r.Release()
	if ms, _, err := s.r.MaxTimestamp(); err == nil && ms >= 0 && ms <= nowMs {
		return
	}
	if e, err := s.dir.spec.FS.Stat(s.r.LogName()); err == nil {
		s.fileMs.Store(max(e.ModTime.UnixMilli(), 1))
	}
}

// learnTimes asks the device for the first and the newest timestamp.
func (s *logSegment) learnTimes() {
	if !s.r.Acquire() {
		return
	}
	defer s.r.Release()
	_, _, _ = s.r.MaxTimestamp() // the reader remembers it; one that cannot be read stays unknown
	_, _ = s.r.FirstTimestamp()
}
