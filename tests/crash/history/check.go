package history

// Found is what Check counted.
type Found struct {
	Records    int64 // in the log
	Acked      int64
	Duplicates int64 // of producers that are not idempotent: allowed
}

// Check compares the whole log with the whole history, after a reader has seen every offset below ends (by partition). The
// findings are in Problems.
func (r *Recorder) Check(ends []int64) Found {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := Found{Acked: r.acks}
	for i := range r.partitions {
		r.checkPartition(int32(i), ends[i], &f)
	}
	return f
}

// checkPartition walks one log in the order of its offsets.
func (r *Recorder) checkPartition(number int32, end int64, f *Found) {
	p := &r.partitions[number]
	if int64(len(p.seen)) > end {
		r.problemf("partition %d ends at %d, but %d was read: vanished", number, end, len(p.seen)-1)
	}
	next := make([]int32, len(r.producers)) // per producer the seq that comes next
	for offset := range end {
		if offset >= int64(len(p.seen)) || p.seen[offset].producer == 0 {
			r.problemf("partition %d, offset %d: a hole below the end %d", number, offset, end)
			continue
		}
		f.Records++
		s := p.seen[offset]
		from, id := r.producers[s.producer-1], s.id(number)
		expected := &next[s.producer-1]
		switch {
		case s.seq == *expected:
			*expected++
		case s.seq > *expected && !from.idempotent && r.unackedRange(id, *expected):
			*expected = s.seq + 1 // given up by the client, never promised
		case s.seq > *expected:
			r.problemf("partition %d, offset %d: %v, but seq %d comes next: lost or out of order", number, offset, id, *expected)
			*expected = s.seq + 1
		case from.idempotent:
			r.problemf("partition %d, offset %d: %v for the second time: duplicate of an idempotent producer", number, offset, id)
		default:
			f.Duplicates++
		}
	}
	r.checkAcks(number, end, next)
}

// unackedRange tells whether nothing from seq from up to id was acked.
func (r *Recorder) unackedRange(id ID, from int32) bool {
	for _, offset := range r.producers[id.Producer].sent[id.Partition][from:id.Seq] {
		if offset != unacked {
			return false
		}
	}
	return true
}

// checkAcks looks every acked record up.
func (r *Recorder) checkAcks(number int32, end int64, next []int32) {
	p := &r.partitions[number]
	for i, from := range r.producers {
		for seq, offset := range from.sent[number] {
			id := ID{int32(i), number, int32(seq)}
			switch {
			case offset == unacked:
			case offset == ackedAny && int32(seq) >= next[i]:
				r.problemf("%v: acked, but it is not there: lost", id)
			case offset >= end:
				r.problemf("%v: acked at offset %d, but partition ends at %d: lost", id, offset, end)
			case offset >= 0 && offset < int64(len(p.seen)) && p.seen[offset].producer != 0:
				r.compareLocked(number, offset, p.seen[offset], id)
			}
		}
	}
}
