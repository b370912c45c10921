//! Who moves with whom directly: partial correlations, in which what two accounts have from a third one is taken out.
//!
//! They come from the inverse of the correlation matrix, and the inverse of an estimated matrix is mostly its errors. So the matrix is first
//! drawn towards the identity by as much as its errors are of it (Ledoit and Wolf 2004); steps that resemble one another count as
//! fewer ones there, too. The graphical lasso would set small ones to 0 and needs a penalty that somebody has to choose.

use crate::risk::correlation::{inflation, memory};
use crate::risk::matrix::Matrix;
use crate::risk::residuals::Residuals;

/// Partial correlations of all pairs at the same step. Steps that are not known count as usual ones.
#[must_use]
pub fn partial_correlations(residuals: &Residuals) -> Matrix {
    let size = residuals.customers();
    let steps = residuals.steps();
    if steps == 0 {
        return Matrix::identity(size);
    }
    let rows: Vec<Vec<f64>> = residuals
        .scores
        .iter()
        .map(|scores| {
            let square: f64 = scores.iter().map(|score| f64::from(*score).powi(2)).sum();
            let scale = if square > 0.0 {
                (steps as f64 / square).sqrt()
            } else {
                0.0
            };
            scores
                .iter()
                .map(|score| f64::from(*score) * scale)
                .collect()
        })
        .collect();
    let mut correlations = Matrix::identity(size);
    for row in 0..size {
        for column in 0..row {
            let products = rows[row].iter().zip(&rows[column]).map(|(l, r)| l * r);
            let correlation = products.sum::<f64>() / steps as f64;
            *correlations.at_mut(row, column) = correlation;
            *correlations.at_mut(column, row) = correlation;
        }
    }
    let shrunk = shrink(correlations, &rows, mean_inflation(residuals));
    let Some(inverse) = shrunk.inverse() else {
        return Matrix::identity(size);
    };
    let mut partial = Matrix::identity(size);
    for row in 0..size {
        for column in (0..size).filter(|column| *column != row) {
            let scale = (inverse.at(row, row) * inverse.at(column, column)).sqrt();
            *partial.at_mut(row, column) = -inverse.at(row, column) / scale;
        }
    }
    partial
}

/// Draws a correlation matrix towards the identity by the part of it that is error.
fn shrink(mut matrix: Matrix, rows: &[Vec<f64>], inflation: f64) -> Matrix {
    let size = matrix.size();
    let steps = rows.first().map_or(0, Vec::len);
    let fourth: f64 = (0..steps)
        .map(|step| {
            let square: f64 = rows.iter().map(|row| row[step] * row[step]).sum();
            square * square
        })
        .sum();
    let count = steps as f64;
    let error = (fourth / count - matrix.square()).max(0.0) / count * inflation;
    let off = matrix.square() - size as f64;
    let part = if off > 0.0 {
        (error / off).min(1.0)
    } else {
        1.0
    };
    for row in 0..size {
        for column in (0..size).filter(|column| *column != row) {
            *matrix.at_mut(row, column) *= 1.0 - part;
        }
    }
    matrix
}

/// How many steps are worth one, over all customers.
fn mean_inflation(residuals: &Residuals) -> f64 {
    let count = residuals.customers().max(1) as f64;
    let all = (0..residuals.customers()).map(|customer| {
        let memory = memory(residuals, customer);
        inflation(&memory, &memory)
    });
    all.sum::<f64>() / count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::risk::chance::Chance;
    use crate::risk::normal::quantile;

    #[test]
    fn what_two_have_from_a_third_is_taken_out() {
        let mut chance = Chance::of_part(3, 0);
        let mut noise =
            || quantile((chance.below(1 << 20) as f64 + 0.5) / f64::from(1 << 20)) as f32;
        let mut rows = vec![Vec::new(); 4];
        for _ in 0..4000 {
            let first = noise();
            let second = 0.8 * first + 0.6 * noise();
            let third = 0.8 * second + 0.6 * noise();
            for (row, value) in rows.iter_mut().zip([first, second, third, noise()]) {
                row.push(value);
            }
        }
        let residuals = Residuals {
            values: rows.clone(),
            scores: rows,
        };
        let partial = partial_correlations(&residuals);
        assert!(partial.at(0, 1) > 0.5 && partial.at(1, 2) > 0.5);
        assert!(partial.at(0, 2).abs() < 0.06, "{}", partial.at(0, 2));
        assert!(partial.at(0, 3).abs() < 0.06);
    }
}
