import { RecordBatchReader, type RecordBatch, type Schema } from "apache-arrow";
import type { FlightData } from "./gen/arrow/Flight_pb.js";

const CONTINUATION = 0xffffffff;
const PREFIX_BYTES = 8;
const ALIGNMENT_BYTES = 8;

/** A Flight message as the Arrow IPC stream format has it: prefix, header padded to 8 bytes, body. */
export function ipcMessage(data: FlightData): Uint8Array {
  const headerEnd = PREFIX_BYTES + data.dataHeader.byteLength;
  const bodyStart = Math.ceil(headerEnd / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
  // A copy, because columns are views of it and must start at multiples of 8, which bytes inside a message do not.
  const message = new Uint8Array(bodyStart + data.dataBody.byteLength);
  const prefix = new DataView(message.buffer);
  prefix.setUint32(0, CONTINUATION, true);
  prefix.setUint32(4, bodyStart - PREFIX_BYTES, true);
  message.set(data.dataHeader, PREFIX_BYTES);
  message.set(data.dataBody, bodyStart);
  return message;
}

/** Decoded rows of one Flight stream. */
export interface Decoded {
  readonly schema: Schema;
  /** Reads a message when a batch is asked for, not before. */
  readonly batches: AsyncIterable<RecordBatch>;
}

/** Reads the schema, which is the first message, and decodes the others as they are asked for. */
export async function decode(messages: AsyncIterable<FlightData>): Promise<Decoded> {
  const reader = await RecordBatchReader.from(bytesOf(messages));
  await reader.open();
  return { schema: reader.schema, batches: withRows(reader) };
}

async function* bytesOf(messages: AsyncIterable<FlightData>): AsyncGenerator<Uint8Array> {
  for await (const data of messages) {
    if (data.dataHeader.byteLength > 0) yield ipcMessage(data);
  }
}

/** Arrow's reader makes up an empty batch for a stream without any; it is left out. */
async function* withRows(reader: AsyncIterable<RecordBatch>): AsyncGenerator<RecordBatch> {
  for await (const batch of reader) {
    if (batch.numRows > 0) yield batch;
  }
}
