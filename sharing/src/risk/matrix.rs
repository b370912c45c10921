//! Square matrices, as small as what is needed of them: to be shown, and to be inverted.

/// One number for each ordered pair.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    size: usize,
    values: Vec<f64>,
}

// === impl Matrix ===

impl Matrix {
    /// All zeros.
    #[must_use]
    pub fn new(size: usize) -> Self {
        Self {
            size,
            values: vec![0.0; size * size],
        }
    }

    /// Ones where a row meets its own column.
    pub(crate) fn identity(size: usize) -> Self {
        let mut matrix = Self::new(size);
        for at in 0..size {
            *matrix.at_mut(at, at) = 1.0;
        }
        matrix
    }

    /// How many rows, and columns.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// The value of a pair, 0 for positions that the matrix does not have.
    #[must_use]
    pub fn at(&self, from: usize, to: usize) -> f64 {
        if from < self.size && to < self.size {
            self.values[from * self.size + to]
        } else {
            0.0
        }
    }

    pub(crate) fn at_mut(&mut self, from: usize, to: usize) -> &mut f64 {
        &mut self.values[from * self.size + to]
    }

    /// Row by row.
    pub fn rows(&self) -> impl Iterator<Item = &[f64]> {
        self.values.chunks(self.size.max(1))
    }

    /// The sum of squares of all values.
    pub(crate) fn square(&self) -> f64 {
        self.values.iter().map(|value| value * value).sum()
    }

    /// The inverse of a symmetric positive definite matrix, by Cholesky's decomposition; none if it is not one.
    pub(crate) fn inverse(&self) -> Option<Self> {
        let size = self.size;
        let mut lower = Self::new(size);
        for row in 0..size {
            for column in 0..=row {
                let (left, right) = (lower.row(row), lower.row(column));
                let known: f64 = left[..column]
                    .iter()
                    .zip(&right[..column])
                    .map(|(l, r)| l * r)
                    .sum();
                let rest = self.at(row, column) - known;
                *lower.at_mut(row, column) = if row == column {
                    if rest <= 1e-12 {
                        return None;
                    }
                    rest.sqrt()
                } else {
                    rest / lower.at(column, column)
                };
            }
        }
        // Columns of the inverse of the lower half, as rows, and from them the whole.
        let mut columns = Self::new(size);
        for column in 0..size {
            for row in column..size {
                let known: f64 = (column..row)
                    .map(|at| lower.at(row, at) * columns.at(column, at))
                    .sum();
                let one = if row == column { 1.0 } else { 0.0 };
                *columns.at_mut(column, row) = (one - known) / lower.at(row, row);
            }
        }
        let mut inverse = Self::new(size);
        for row in 0..size {
            for column in 0..size {
                let (left, right) = (columns.row(row), columns.row(column));
                let from = row.max(column);
                *inverse.at_mut(row, column) = left[from..]
                    .iter()
                    .zip(&right[from..])
                    .map(|(l, r)| l * r)
                    .sum();
            }
        }
        Some(inverse)
    }

    fn row(&self, at: usize) -> &[f64] {
        &self.values[at * self.size..(at + 1) * self.size]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_times_its_inverse_is_one() {
        let mut matrix = Matrix::identity(4);
        for (row, column, value) in [(0, 1, 0.5), (0, 2, 0.3), (1, 3, -0.4), (2, 3, 0.2)] {
            *matrix.at_mut(row, column) = value;
            *matrix.at_mut(column, row) = value;
        }
        let inverse = matrix.inverse().unwrap();
        for row in 0..4 {
            for column in 0..4 {
                let product: f64 = (0..4)
                    .map(|at| matrix.at(row, at) * inverse.at(at, column))
                    .sum();
                let expected = if row == column { 1.0 } else { 0.0 };
                assert!((product - expected).abs() < 1e-12, "{row} {column}");
            }
        }
        *matrix.at_mut(0, 0) = -1.0;
        assert_eq!(matrix.inverse(), None);
    }
}
