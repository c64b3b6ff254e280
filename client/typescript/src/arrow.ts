import { RecordBatchReader, type RecordBatch, type Schema } from "apache-arrow";
import type { FlightData } from "./gen/arrow/Flight_pb.js";

/** What precedes each message of an IPC stream. */
const CONTINUATION = 0xffffffff;
const CONTINUATION_BYTES = 4;
const LENGTH_BYTES = 4;
const ALIGNMENT_BYTES = 8;

/**
 * A Flight message as the Arrow IPC stream format has it: length of the header, header padded to 8 bytes, body, and then the
 * continuation mark of the message after it. The mark comes early because Arrow's reader does not hand over what it has read
 * before it sees one byte more, so that a batch would wait for the batch after it.
 */
function ipcMessage(data: FlightData): Uint8Array {
  const lengthStart = CONTINUATION_BYTES;
  const headerStart = lengthStart + LENGTH_BYTES;
  const bodyStart = Math.ceil((headerStart + data.dataHeader.byteLength) / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
  const bodyEnd = bodyStart + data.dataBody.byteLength;
  // A copy, because columns are views of it and must start at multiples of 8, which bytes inside a message do not.
  const bytes = new Uint8Array(bodyEnd + CONTINUATION_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(lengthStart, bodyStart - headerStart, true);
  bytes.set(data.dataHeader, headerStart);
  bytes.set(data.dataBody, bodyStart);
  view.setUint32(bodyEnd, CONTINUATION, true);
  return bytes.subarray(lengthStart);
}

/** Decoded rows of one Flight stream. */
export interface Decoded {
  readonly schema: Schema;
  /** Reads a message when a batch is asked for, not before. */
  readonly batches: AsyncIterable<RecordBatch>;
}

/**
 * Reads the schema, which is the first message, and decodes the others as they are asked for. `messages` is closed when the
 * batches end or are left: Arrow's reader would not do that.
 */
export async function decode(messages: AsyncGenerator<FlightData, void>): Promise<Decoded> {
  try {
    const reader = await RecordBatchReader.from(bytesOf(messages));
    await reader.open();
    return { schema: reader.schema, batches: withRows(reader, messages) };
  } catch (reason) {
    await messages.return();
    throw reason;
  }
}

async function* bytesOf(messages: AsyncIterable<FlightData>): AsyncGenerator<Uint8Array> {
  yield new Uint8Array(CONTINUATION_BYTES).fill(0xff);
  for await (const data of messages) {
    if (data.dataHeader.byteLength > 0) yield ipcMessage(data);
  }
}

/** Arrow's reader makes up an empty batch for a stream without any; it is left out. */
async function* withRows(
  reader: AsyncIterable<RecordBatch>,
  messages: AsyncGenerator<FlightData, void>,
): AsyncGenerator<RecordBatch> {
  try {
    for await (const batch of reader) {
      if (batch.numRows > 0) yield batch;
    }
  } finally {
    await messages.return();
  }
}
