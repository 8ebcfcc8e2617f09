package segment

import (
	"encoding/binary"
)

// DecodeIndexForTest decodes both index files and gives them encoded again.
func DecodeIndexForTest(base Offset, offsets, times []byte, logSize int64) (offsetsAgain, timesAgain []byte, err error) {
	x, err := decodeIndex(base, offsets, times, logSize)
	if err != nil {
		return nil, nil, err
	}
	return x.encodeEntries(nil, 0), x.encodeTimes(nil, 0), nil
}

// DecodeFramesForTest gives the entries that an index checkpoint holds, in the format of the index files.
func DecodeFramesForTest(base Offset, b []byte, logSize int64) (offsets, times []byte) {
	x, _ := decodeFrames(base, b, logSize)
	return x.encodeEntries(nil, 0), x.encodeTimes(nil, 0)
}

// DecodeSnapshotForTest decodes a producer snapshot and its sidecar and gives them encoded again.
func DecodeSnapshotForTest(snapshot, sidecar []byte, at Offset) (snapshotAgain, sidecarAgain []byte, err error) {
	rows, err := decodeSnapshot(snapshot, at)
	if err != nil {
		return nil, nil, err
	}
	s := &ProducerState{producers: rows}
	snapshotAgain = encodeSnapshot(s.sorted())
	if err := decodeBatches(sidecar, binary.BigEndian.Uint32(snapshot[2:]), rows); err != nil {
		return snapshotAgain, nil, err
	}
	return snapshotAgain, encodeBatches(s.sorted(), binary.BigEndian.Uint32(snapshot[2:])), nil
}

// FixSnapshotCRCForTest puts the checksums right, so that a fuzzer gets behind them.
func FixSnapshotCRCForTest(snapshot, sidecar []byte) {
	if len(snapshot) >= snapshotHeaderSize {
		binary.BigEndian.PutUint32(snapshot[2:], crcOf(snapshot[6:]))
	}
	if len(sidecar) >= batchesHeaderSize && len(snapshot) >= snapshotHeaderSize {
		copy(sidecar[12:16], snapshot[2:6])
		binary.BigEndian.PutUint32(sidecar[8:], batchesCRC(sidecar))
	}
}

func crcOf(b []byte) uint32 { return batchCRC(append(make([]byte, atAttributes), b...)) }

// DecodeTxnsForTest decodes a .txnindex and gives it encoded again.
func DecodeTxnsForTest(b []byte, base Offset) ([]byte, error) {
	list, err := decodeTxns(b, base)
	if err != nil {
		return nil, err
	}
	return encodeTxns(list), nil
}
