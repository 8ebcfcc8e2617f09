package rawkafka

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// HeaderBytes is what comes before a batch's records.
const HeaderBytes = 61

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Batch builds an uncompressed batch of n records with values of size letters, without producer id, stamped ms.
func Batch(n, size int, ms int64) []byte {
	return RandomBatch(n, size, ms, func(_ int, value []byte) {
		for i := range value {
			value[i] = byte('a' + i%26)
		}
	})
}

// RandomBatch is Batch with values that fill makes.
func RandomBatch(n, size int, ms int64, fill func(record int, value []byte)) []byte {
	value := make([]byte, size)
	b := make([]byte, HeaderBytes)
	for i := range n {
		fill(i, value)
		body := []byte{0, 0}
		body = binary.AppendVarint(body, int64(i))
		body = binary.AppendVarint(body, -1)
		body = binary.AppendVarint(body, int64(size))
		body = append(body, value...)
		body = append(body, 0)
		b = binary.AppendVarint(b, int64(len(body)))
		b = append(b, body...)
	}
	be := binary.BigEndian
	be.PutUint32(b[8:], uint32(len(b)-12))
	be.PutUint32(b[12:], 0xffffffff)
	b[16] = 2
	be.PutUint32(b[23:], uint32(n-1))
	be.PutUint64(b[43:], ^uint64(0))
	be.PutUint16(b[51:], 0xffff)
	be.PutUint32(b[53:], 0xffffffff)
	be.PutUint32(b[57:], uint32(n))
	Stamp(b, ms)
	return b
}

// Stamp gives a batch its timestamps, in milliseconds since 1970.
func Stamp(b []byte, ms int64) {
	binary.BigEndian.PutUint64(b[27:], uint64(ms))
	binary.BigEndian.PutUint64(b[35:], uint64(ms))
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
}

// Check verifies the CRCs of whole batches, as Fetched.Records holds them.
func Check(records []byte) error {
	for len(records) > 0 {
		base, b, rest, err := cut(records)
		if err != nil {
			return err
		}
		if got, want := crc32.Checksum(b[21:], castagnoli), binary.BigEndian.Uint32(b[17:]); got != want {
			return fmt.Errorf("batch at offset %d: its CRC is %08x, its bytes give %08x", base, want, got)
		}
		records = rest
	}
	return nil
}

// cut takes the first batch off.
func cut(records []byte) (base int64, batch, rest []byte, err error) {
	if len(records) < HeaderBytes {
		return 0, nil, nil, fmt.Errorf("%d bytes are no batch", len(records))
	}
	base = int64(binary.BigEndian.Uint64(records))
	size := int64(int32(binary.BigEndian.Uint32(records[8:]))) + 12
	if size < HeaderBytes || size > int64(len(records)) {
		return 0, nil, nil, fmt.Errorf("batch at offset %d claims %d of %d bytes", base, size, len(records))
	}
	return base, records[:size], records[size:], nil
}

// Values calls fn with each record of whole, uncompressed batches.
func Values(records []byte, fn func(offset int64, value []byte)) error {
	for len(records) > 0 {
		base, b, rest, err := cut(records)
		if err != nil {
			return err
		}
		if b[22]&0x07 != 0 {
			return fmt.Errorf("batch at offset %d is compressed", base)
		}
		if b[22]&0x20 == 0 {
			if err := values(base, b, fn); err != nil {
				return err
			}
		} // else a control batch: no data
		records = rest
	}
	return nil
}

func values(base int64, b []byte, fn func(offset int64, value []byte)) error {
	body := b[HeaderBytes:]
	for i := range int32(binary.BigEndian.Uint32(b[57:])) {
		size, n := binary.Varint(body)
		if n <= 0 || size < 0 || size > int64(len(body)-n) {
			return fmt.Errorf("record %d of the batch at offset %d claims %d of %d bytes", i, base, size, len(body))
		}
		delta, value, err := record(body[n : n+int(size)])
		if err != nil {
			return fmt.Errorf("record %d of the batch at offset %d: %w", i, base, err)
		}
		fn(base+delta, value)
		body = body[n+int(size):]
	}
	return nil
}

var errCutOff = errors.New("cut off")

// record finds offset delta and value.
func record(b []byte) (delta int64, value []byte, err error) {
	if len(b) == 0 {
		return 0, nil, errCutOff
	}
	b = b[1:] // attributes
	var field [2]int64
	for i := range field { // timestamp delta, offset delta
		n := 0
		if field[i], n = binary.Varint(b); n <= 0 {
			return 0, nil, errCutOff
		}
		b = b[n:]
	}
	for range 2 { // key, value
		size, n := binary.Varint(b)
		if n <= 0 || size > int64(len(b)-n) {
			return 0, nil, errCutOff
		}
		size = max(size, 0)
		value, b = b[n:n+int(size)], b[n+int(size):]
	}
	return field[1], value, nil
}
