package classic

import "time"

// MayCommit checks a commit. Generation -1 with no member is a consumer that takes no part in the group, allowed while it is empty.
// A commit keeps the member's session alive.
func (g *Group) MayCommit(now time.Time, memberID, instanceID string, generation int32) Error {
	if g.state == Dead {
		return CoordinatorNotAvailable
	}
	if generation < 0 && g.state == Empty {
		return None
	}
	if generation < 0 && memberID == "" && instanceID == "" {
		return UnknownMemberID // only members commit in a group that has some
	}
	m, err := g.known(memberID, instanceID)
	switch {
	case err != None:
		return err
	case generation != g.generation:
		return IllegalGeneration
	case g.state == CompletingRebalance:
		return RebalanceInProgress // it knows the generation, but not yet what it may read in it
	}
	m.watch(now)
	return None
}

// MayDeleteOffsets checks a deletion of offsets; those of subscribed topics stay, see Subscribed.
func (g *Group) MayDeleteOffsets() Error {
	switch {
	case g.state == Dead:
		return GroupIDNotFound
	case g.state != Empty && !g.consumers():
		return NonEmptyGroup
	}
	return None
}

// Subscribed tells whether members read a topic. When that is not known, a group of consumers is taken to read every topic.
func (g *Group) Subscribed(topic string) bool {
	if g.topicsTold {
		_, ok := g.topics[topic]
		return ok
	}
	return g.state != Empty && g.consumers()
}

// ExpiryBase is the time from which the retention of an offset counts that was committed at a time; ok is false while nothing
// expires: a group with members keeps its offsets, but for a stable group of consumers those of topics that nobody subscribes to.
func (g *Group) ExpiryBase(topic string, committed time.Time) (base time.Time, ok bool) {
	switch {
	case g.protocolType == "": // nobody ever joined: a consumer that only keeps its offsets here
		return committed, true
	case g.state == Empty:
		if g.since.IsZero() {
			return committed, true
		}
		return g.since, true
	case g.state == Stable && g.consumers() && g.topicsTold:
		return committed, !g.Subscribed(topic)
	}
	return time.Time{}, false
}

// learnTopics reads the subscriptions of a new generation.
func (g *Group) learnTopics() {
	g.topics, g.topicsTold, g.topicBytes = nil, false, 0
	if len(g.members) == 0 {
		g.topicsTold = true
		return
	}
	if !g.consumers() {
		return
	}
	topics := map[string]struct{}{}
	for _, m := range g.members {
		names, ok := subscription(m.metadata(g.protocol))
		if !ok {
			return
		}
		for _, n := range names {
			topics[n] = struct{}{}
		}
	}
	g.topics, g.topicsTold = topics, true
	for n := range topics {
		g.topicBytes += int64(40 + len(n))
	}
}

// reader reads big-endian fields and remembers whether one did not fit.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || n > len(r.b) {
		r.bad = true
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) int16() int {
	if b := r.take(2); b != nil {
		return int(int16(uint16(b[0])<<8 | uint16(b[1])))
	}
	return 0
}

func (r *reader) int32() int {
	if b := r.take(4); b != nil {
		return int(int32(uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])))
	}
	return 0
}

// subscription reads the topics of a consumer's metadata: version, topics; what follows is for assignors.
func subscription(b []byte) (topics []string, ok bool) {
	r := reader{b: b}
	r.int16()
	for n := r.int32(); n > 0 && !r.bad; n-- {
		topics = append(topics, string(r.take(r.int16())))
	}
	return topics, !r.bad
}

// TopicPartitions is a part of an assignment.
type TopicPartitions struct {
	Topic      string
	Partitions []int32
}

// assignment reads a consumer's assignment: version, topics with partitions; user data follows.
func assignment(b []byte) (out []TopicPartitions, ok bool) {
	if len(b) == 0 {
		return nil, true
	}
	r := reader{b: b}
	r.int16()
	out = r.topics()
	return out, !r.bad
}

func (r *reader) topics() (out []TopicPartitions) {
	for n := r.int32(); n > 0 && !r.bad; n-- {
		t := TopicPartitions{Topic: string(r.take(r.int16()))}
		for p := r.int32(); p > 0 && !r.bad; p-- {
			t.Partitions = append(t.Partitions, int32(r.int32()))
		}
		out = append(out, t)
	}
	return out
}
