//! Tokens by weight, and reports without an image.

use super::*;

/// Numbers of the positions that a loss is over, by report.
fn counted(report_loss: ReportLoss) -> [f64; 2] {
    if report_loss == ReportLoss::All { [7.0, 7.0] } else { [3.0, 1.0] }
}

#[test]
fn tokens_count_by_their_weights() {
    let batch = Batch::new();
    let values = [1_f32, 2.5, 0.5, 3.0, 0.25, 1.0, 0.0, 1.0, 2.0, 4.0, 1.0, 0.0, 0.0, 0.0];
    let [weights, ones, zeros] = [values, [1.0; 14], [0.0; 14]].map(|values| Tensor::from_slice(&values).view([2, 7]));
    for report_loss in [ReportLoss::All, ReportLoss::Masked] {
        let (_store, mut model) = model(&MrmConfig { report_loss, ..config() });
        let run = |model: &Mrm, weights: Option<&Tensor>, train| {
            let report = ReportBatch { weights, ..batch.report() };
            model.forward(&batch.image, Some(report), Some(&batch.noise), train).unwrap()
        };
        let output = run(&model, Some(&weights), false);
        let logits = output.mlm_logits.as_ref().unwrap().view([14, 30]).log_softmax(-1, Kind::Float);
        let [ids, labels] = [&batch.ids, &batch.labels].map(|ids| Vec::<i64>::try_from(ids.flatten(0, 1)).unwrap());
        let (mut sum, mut count) = (0.0, 0.0);
        for at in (0..14).filter(|&at| report_loss == ReportLoss::All || ids[at] != labels[at]) {
            sum -= f64::from(values[at]) * logits.double_value(&[at as i64, labels[at]]);
            count += f64::from(values[at]);
        }
        let loss = |output: &MrmOutput| number(output.loss_report.as_ref());
        close(loss(&output), sum / count);
        close(output.total.double_value(&[]), number(output.loss_image.as_ref()) + sum / count);
        close(loss(&run(&model, Some(&weights), true)), sum / count);
        for train in [false, true] {
            close(loss(&run(&model, Some(&ones), train)), loss(&run(&model, None, train)));
            let nothing = run(&model, Some(&zeros), train);
            assert_eq!(loss(&nothing), 0.0);
            nothing.total.backward();
        }
        // The losses of the reports make that of the batch.
        model.set_record_losses(true);
        let ReportLosses { sums, counts } = run(&model, Some(&weights), true).report_losses.unwrap();
        close(sums.sum(Kind::Float).double_value(&[]), sum);
        close(counts.sum(Kind::Float).double_value(&[]), count);
        let wrong = ones.narrow(1, 0, 6);
        let report = ReportBatch { weights: Some(&wrong), ..batch.report() };
        assert!(model.forward(&batch.image, Some(report), None, true).unwrap_err().to_string().starts_with("weights:"));
    }
}

/// A batch of one report.
fn one<'a>([ids, labels, attention_mask]: &'a [Tensor; 3], rows: &'a Tensor) -> ReportBatch<'a> {
    let (type_ids, weights, masked, padded) = (None, None, None, None);
    ReportBatch { ids, labels, attention_mask, type_ids, rows: Some(rows), weights, masked, padded }
}

#[test]
fn a_report_without_an_image_is_predicted_from_its_words_and_does_not_train_the_encoder() {
    tch::set_num_threads(1); // the order of summation of several threads differs between batch sizes
    let batch = Batch::new();
    let (image, noise) = (batch.image.narrow(0, 1, 1), batch.noise.narrow(0, 1, 1));
    let [first, second] =
        [0, 1].map(|at| [&batch.ids, &batch.labels, &batch.attention_mask].map(|table| table.narrow(0, at, 1)));
    let [row, rows] = [&[0_i64][..], &[0, 1]].map(Tensor::from_slice);
    for report_loss in [ReportLoss::All, ReportLoss::Masked] {
        let (store, mut model) = model(&MrmConfig { report_loss, ..config() });
        // The first report has the image, the second one has none.
        let report = ReportBatch { rows: Some(&rows), ..batch.report() };
        let both = model.forward(&image, Some(report), Some(&noise), true).unwrap();
        let with = model.forward(&image, Some(one(&first, &row)), Some(&noise), true).unwrap();
        let without = model.forward(&image.narrow(0, 0, 0), Some(one(&second, &row)), None, true).unwrap();
        let (loss_image, both, _) = losses_and_gradients(&store, &both);
        let (expected, with, _) = losses_and_gradients(&store, &with);
        close(loss_image, expected);
        let (nothing, alone, gradients) = losses_and_gradients(&store, &without);
        let counts = counted(report_loss);
        close(both, (with * counts[0] + alone * counts[1]) / (counts[0] + counts[1]));
        assert_eq!((nothing, without.total.double_value(&[])), (0.0, alone));
        assert!(alone > 0.5 && without.image_losses.is_none());
        let largest = |gradient: &Tensor| gradient.abs().max().double_value(&[]);
        for (name, gradient) in &gradients {
            let is_of_report = name.starts_with("bert");
            assert!(is_of_report || largest(gradient) == 0.0, "{name}");
        }
        let trained = gradients.iter().filter(|(name, gradient)| name.starts_with("bert") && largest(gradient) > 0.0);
        assert!(trained.count() > 8);

        model.set_record_losses(true);
        let without = model.forward(&image.narrow(0, 0, 0), Some(one(&second, &row)), None, true).unwrap();
        assert_eq!(without.image_losses.unwrap().size(), [0]);
        assert_eq!(without.report_losses.unwrap().counts.double_value(&[0]), counts[1]);
        let nothing = model.forward(&image.narrow(0, 0, 0), None, None, true);
        assert!(nothing.unwrap_err().to_string().starts_with("report:"));
    }
}
