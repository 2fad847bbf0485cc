"""A reader of datasets in Python without packages, as an example of docs/format.md.

    python docs/reader.py DATASET

It checks all sizes and checksums, and prints shard, row, length and CRC-32 of each image. It reads uncompressed image pages
only. It is meant for authors of readers that seek single images; for anything else, use a Parquet library.
"""

import base64
import json
import struct
import sys
import zlib

def thrift(data, at=0):
    """One struct of Thrift's compact protocol, as {field: value}, and its end."""
    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def zigzag():
        value = varint()
        return (value >> 1) ^ -(value & 1)

    def read(kind):
        nonlocal at
        if kind in (1, 2):  # the kind of a bool is its value
            return kind == 1
        if kind == 3:
            at += 1
            return struct.unpack_from("b", data, at - 1)[0]
        if kind in (4, 5, 6):
            return zigzag()
        if kind == 7:
            at += 8
            return struct.unpack_from("<d", data, at - 8)[0]
        if kind == 8:
            length = varint()
            at += length
            return data[at - length : at]
        if kind in (9, 10):
            head = data[at]
            at += 1
            length = head >> 4 if head >> 4 < 15 else varint()
            if head & 15 in (1, 2):
                at += length
                return [byte == 1 for byte in data[at - length : at]]
            return [read(head & 15) for _ in range(length)]
        if kind == 12:
            return record()
        raise ValueError(f"kind {kind}")

    def record():
        nonlocal at
        fields, last = {}, 0
        while data[at]:
            head = data[at]
            at += 1
            last = last + (head >> 4) if head >> 4 else zigzag()
            fields[last] = read(head & 15)
        at += 1
        return fields
    return record(), at


def main(root):
    manifest = json.load(open(f"{root}/dataset.json"))
    assert manifest["format_version"] in (1, 2)
    for shard in manifest["shards"]:
        data = open(f"{root}/{shard['path']}", "rb").read()
        assert len(data) == shard["bytes"] and data[:4] == data[-4:] == b"PAR1"
        length = struct.unpack("<I", data[-8:-4])[0]
        footer, _ = thrift(data[-8 - length : -8])
        keys = {pair[1].decode(): pair.get(2, b"").decode() for pair in footer[5]}
        numbers = None  # a shard may have no checksums
        if "mrm_crc32" in keys:
            checksums = base64.b64decode(keys["mrm_crc32"])
            numbers = list(struct.unpack(f"<{len(checksums) // 4}I", checksums))
            assert zlib.crc32(checksums[:-4]) == numbers.pop()
        at, rows = 4, 0
        for group in footer[4]:  # FileMetaData.row_groups
            for chunk in group[1]:  # RowGroup.columns
                column = chunk[3]  # ColumnChunk.meta_data
                first = column.get(11, column[9])  # dictionary_page_offset, else data_page_offset
                assert first == at
                end = at + column[7]  # total_compressed_size
                if column[3] != [b"image"]:
                    assert numbers is None or zlib.crc32(data[at:end]) == numbers.pop(0)
                    at = end
                    continue
                # OffsetIndex, at offset_index_offset; a PageLocation is offset, compressed_page_size, first_row_index.
                index, _ = thrift(data[chunk[4] : chunk[4] + chunk[5]])
                pages = index[1]
                assert len(pages) == group[3] and [page[3] for page in pages] == list(range(group[3]))
                for place in pages:
                    page = data[place[1] : place[1] + place[2]]
                    assert place[1] == at and (numbers is None or zlib.crc32(page) == numbers.pop(0))
                    at += place[2]
                    header, body = thrift(page)
                    assert header[1] == 0 and header[5][1] == 1 and header[5][2] == 0  # a data page of one PLAIN value
                    assert column[4] == 0  # uncompressed
                    size = struct.unpack_from("<I", page, body)[0]
                    image = page[body + 4 :]
                    assert size == len(image) == header[2] - 4
                    print(shard["path"], rows, size, zlib.crc32(image))
                    rows += 1
                assert at == end
        assert rows == shard["rows"] and not numbers


if __name__ == "__main__":
    main(sys.argv[1])
