//! How large everything is.

/// Experts, inputs, rows of a sample, fits at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    pub experts: usize,
    pub inputs: usize,
    pub rows: usize,
    pub fits: usize,
}

pub struct Scale {
    /// Blocks of a launch that measures a rate, bytes of arrays that measure the
    /// bandwidth, and how long a launch takes at least.
    pub blocks: usize,
    pub bytes: usize,
    pub seconds: f64,
    /// Launches of which the fastest counts.
    pub repetitions: usize,
    /// What each axis varies.
    pub centre: Shape,
    pub rows: Vec<usize>,
    pub experts: Vec<usize>,
    pub inputs: Vec<usize>,
    pub fits: Vec<usize>,
    /// Rows that the processor passes over for one time.
    pub processor_rows: usize,
    /// Rows of samples that results are compared on, samples, fits.
    pub compared_rows: usize,
    pub compared_fits: usize,
    /// Sample sizes and replicates of whole fits.
    pub fitted_rows: Vec<usize>,
    pub replicates: usize,
    /// Rows of all samples that the processor fits, at most.
    pub fitted_processor_rows: usize,
}

impl Scale {
    pub fn new(emulated: bool) -> Self {
        match emulated {
            true => Scale {
                blocks: 2,
                bytes: 3 << 16,
                seconds: 1e-4,
                repetitions: 1,
                centre: Shape {
                    experts: 3,
                    inputs: 2,
                    rows: 200,
                    fits: 3,
                },
                rows: vec![100, 300],
                experts: vec![2, 4],
                inputs: vec![1],
                fits: vec![1, 4],
                processor_rows: 1000,
                compared_rows: 200,
                compared_fits: 4,
                fitted_rows: vec![300, 2_500],
                replicates: 3,
                fitted_processor_rows: 1000,
            },
            false => Scale {
                blocks: 4096,
                bytes: 3 << 30,
                seconds: 0.02,
                repetitions: 5,
                centre: Shape {
                    experts: 3,
                    inputs: 2,
                    rows: 10_000,
                    fits: 1000,
                },
                rows: vec![1_000, 10_000, 100_000, 1_000_000, 10_000_000],
                experts: vec![2, 3, 8],
                inputs: vec![1, 2, 4],
                fits: vec![1, 100, 2000],
                processor_rows: 4_000_000,
                compared_rows: 5_000,
                compared_fits: 200,
                fitted_rows: vec![1_000, 10_000, 100_000],
                replicates: 1000,
                fitted_processor_rows: 20_000_000,
            },
        }
    }

    /// Shapes with all but one size as in the centre. As n varies, the rows of all
    /// samples together stay as many.
    pub fn axes(&self) -> Vec<(&'static str, Vec<Shape>)> {
        let centre = self.centre;
        let all = centre.rows * centre.fits;
        let of = |values: &[usize], shape: &dyn Fn(usize) -> Shape| {
            values.iter().map(|&value| shape(value)).collect()
        };
        let rows = of(&self.rows, &|rows| Shape {
            rows,
            fits: (all / rows).max(1),
            ..centre
        });
        let experts = of(&self.experts, &|experts| Shape { experts, ..centre });
        let inputs = of(&self.inputs, &|inputs| Shape { inputs, ..centre });
        let fits = of(&self.fits, &|fits| Shape { fits, ..centre });
        vec![
            ("rows", rows),
            ("experts", experts),
            ("inputs", inputs),
            ("fits at once", fits),
        ]
    }
}
