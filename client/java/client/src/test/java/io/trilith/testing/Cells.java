package io.trilith.testing;

import java.util.ArrayList;
import java.util.List;
import org.apache.arrow.vector.FieldVector;
import org.apache.arrow.vector.VectorSchemaRoot;
import org.apache.arrow.vector.util.Text;

/** Rows of Arrow batches as Java lists. */
public final class Cells {
    private Cells() {}

    /** All rows; texts as String. */
    public static List<List<Object>> of(Iterable<VectorSchemaRoot> batches) {
        List<List<Object>> rows = new ArrayList<>();
        for (VectorSchemaRoot batch : batches) {
            rows.addAll(of(batch));
        }
        return rows;
    }

    /** The rows of one batch. */
    public static List<List<Object>> of(VectorSchemaRoot batch) {
        List<List<Object>> rows = new ArrayList<>();
        for (int row = 0; row < batch.getRowCount(); row++) {
            List<Object> cells = new ArrayList<>();
            for (FieldVector vector : batch.getFieldVectors()) {
                Object cell = vector.getObject(row);
                cells.add(cell instanceof Text ? cell.toString() : cell);
            }
            rows.add(cells);
        }
        return rows;
    }
}
